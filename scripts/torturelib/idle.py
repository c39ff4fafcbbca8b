"""T16: short runs beside each other while the daemon leaves as soon as nobody needs it; two versions in one home.

`scripts/torture idle [runs] [beside each other]`
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import installations  # noqa: E402
from support.fleet import SHORT, Fleet  # noqa: E402
from support.installations import QUICK, Installed  # noqa: E402
from support.serving import wait_for  # noqa: E402
from table import leave, report  # noqa: E402

_LEFT = "nobody has needed this daemon"
_IN_VAIN = "another trackd daemon owns"
_PAUSE_S = 3.0
_KILLS = 8


@contextmanager
def a_fleet() -> Iterator[Fleet]:
    """In a home of its own, whose daemon leaves at once."""
    with tempfile.TemporaryDirectory(prefix="trackd-t16-", ignore_cleanup_errors=True) as directory:
        fleet = Fleet(Path(directory), has_hub=False, rng=random.Random(16))
        fleet.environment |= QUICK | {"TRACKD_SILENT": "1"}
        try:
            yield fleet
        finally:
            fleet.close()


def idle(count: int, beside: int) -> None:
    """`count` runs of a moment with pauses between."""
    with a_fleet() as fleet:
        began = time.monotonic()

        def train(_number: int) -> int:
            time.sleep(fleet.rng.uniform(0, _PAUSE_S))
            return fleet.train(is_short=True).process.wait(120)

        with ThreadPoolExecutor(beside) as pool:
            failed = sum(code != 0 for code in pool.map(train, range(count)))
        installations.wait_until_left(fleet, 120)
        minutes = (time.monotonic() - began) / 60
        log = fleet.where.log.read_text()
        starts, left, in_vain = int(fleet.where.epoch.read_text()), log.count(_LEFT), log.count(_IN_VAIN)
        rows, problems = installations.verdict(fleet, 300)
        told(problems)
        report(
            "T16", f"{count} short runs, {beside} beside each other, no idle time ({minutes:.0f} min)",
            f"{rows} of {count * SHORT} rows, {len(problems)} runs wrong, {failed} programs failed", "all, 0, 0",
            ok=rows == count * SHORT and not problems and not failed,
        )  # fmt: skip
        report(
            "T16", "daemons meanwhile", f"{starts} started, {left} left because nobody needed them, {in_vain} in vain",
            "every one left idle", ok=starts == left and starts > count // 20,
        )  # fmt: skip


def orders(seconds: float) -> None:
    """An older and a newer installation under load, each first once."""
    for is_upgrade in (True, False):
        with a_fleet() as fleet:
            root = fleet.home.parent
            old, new = (installations.install(root / version, version) for version in ("1.9.0", "1.10.0"))
            with installations.watching(fleet.where) as seen:
                change(fleet, [old, new] if is_upgrade else [new, old], seen, seconds)
            rows, problems = installations.verdict(fleet, 300)
            told(problems)
            what = "upgrade" if is_upgrade else "downgrade"
            report(
                "T16", f"{what} under load", f"{rows} rows, {len(problems)} runs wrong", "0",
                ok=rows > 0 and not problems,
            )  # fmt: skip


def change(fleet: Fleet, order: list[Installed], seen: installations.Seen, seconds: float) -> None:
    """The first alone, both, then after an idle exit the other one, both again, and both while the daemon is killed."""
    what = f"{order[0].version} first, then {order[1].version}"
    begin = under_load(fleet, [order[0]], [order[0], order[1]], seconds)
    first = seen.versions()
    report(
        "T16", f"{what}, together for {begin:.0f} s", f"daemons: {', '.join(first)}", "one",
        ok=first == [order[0].version],
    )  # fmt: skip
    installations.wait_until_left(fleet, 120)
    under_load(fleet, [order[1]], [order[1], order[0]], seconds)
    after = seen.versions()[1:]
    report("T16", "after an idle exit", f"daemons: {', '.join(after)}", "one, the newest", ok=after == ["1.10.0"])
    installations.wait_until_left(fleet, 120)
    killed = under_load(fleet, [order[0]], order, 0.0, kills=_KILLS)
    last = seen.versions()[2:]
    versions = ", ".join(sorted(set(last)))
    report(
        "T16", f"{_KILLS} SIGKILLs of it while both log, {killed:.0f} s", f"{len(last)} daemons: {versions}",
        f"{_KILLS + 1} of the newest", ok=last == ["1.10.0"] * (_KILLS + 1),
    )  # fmt: skip
    installations.wait_until_left(fleet, 120)


def under_load(fleet: Fleet, first: list[Installed], then: list[Installed], seconds: float, kills: int = 0) -> float:
    """Trainers of `first`, then of `then` as well, which all log for so long and are killed; seconds that took."""
    began = time.monotonic()
    trainers = [installed.train(fleet, is_short=False) for installed in first]
    wait_for(lambda: fleet.epoch() > 0, "a daemon", 60)
    trainers += [installed.train(fleet, is_short=False) for installed in then]
    wait_for(lambda: all(fleet.oracle.returned().get(t.number, 0) > 10 for t in trainers), "rows of all", 60)
    for _ in range(kills):
        before = fleet.epoch()
        assert fleet.kill_agent()
        wait_for(lambda before=before: fleet.epoch() > before, "the next daemon", 60)  # type: ignore[misc]
    said = sum(fleet.oracle.returned().values())
    time.sleep(seconds)
    assert sum(fleet.oracle.returned().values()) > said or not seconds, "nobody logs"
    for trainer in trainers:
        fleet.kill_trainer(trainer)
    return time.monotonic() - began


def told(problems: list[str]) -> None:
    """Print them."""
    for problem in problems:
        print(f"  {problem}", flush=True)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    runs = numbers[0] if numbers else 500
    idle(runs, numbers[1] if len(numbers) > 1 else 4)
    orders(min(30.0, runs / 8))
    leave()

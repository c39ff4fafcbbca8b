"""T12: wall clocks jump, go backward, stand still, in trainer, agent and hub, each alone and all together.

`scripts/torture clocks [seconds of each]`
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import clocks, serving  # noqa: E402
from support.clocks import DAY_S, FRESH_S, HOUR_S, YEARS_S, Site  # noqa: E402
from table import leave, report  # noqa: E402

BAR = f"all rows once and in order; {FRESH_S:g} s behind at most; running, then finished"
COURIER_SCAN_S = 10.0


def told(what: str, measured: str, problems: list[str], *, ok: bool = True) -> None:
    """One row of the table."""
    found = "; ".join(problems) or "every row once and in order"
    report("T12", what, f"{found}; {measured}", BAR, ok=ok and not problems)


def jumps(site: Site, seconds: float) -> None:
    """Every setting of every clock, one after the other, while one run logs."""
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    worst, changes = 0.0, 0
    for who, setting in itertools.product(["trainer", "agent", "hub", "all"], clocks.SETTINGS):
        for name, clock in site.clocks(host).items():
            if who in (name, "all"):
                clocks.SETTINGS[setting](clock)
        site.wait_for_proofs(host, "run")
        seen = site.watch("run", seconds)
        worst, changes = max(worst, seen.behind_s), changes + 1
        print(f"  {who} {setting}: {seen.behind_s:.2f} s behind, {', '.join(seen.states)}", flush=True)
    what = f"{changes} settings of the clocks of trainer, agent, hub and all, each seen by the process itself"
    told(what, f"{worst:.2f} s behind at most", site.problems(host), ok=worst < FRESH_S)


def flips(site: Site, seconds: float) -> None:
    """Back and forth by ten years, a hundred times a second: whatever waits for a wall clock is hit in its wait."""
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    ends, count = time.monotonic() + 4 * seconds, 0
    while time.monotonic() < ends:
        for clock in site.clocks(host).values():
            clock.set((-YEARS_S, YEARS_S)[count % 2])
        count += 1
        time.sleep(0.01)  # the rhythm
    for clock in site.clocks(host).values():
        clock.set(-YEARS_S)
    site.wait_for_proofs(host, "run")
    took_s = site.catch_up_s("run")
    waits = ", ".join(f"{who} {clock.waits}" for who, clock in site.clocks(host).items())
    measured = f"fresh {took_s:.2f} s later; waits for a moment of the wall clock: {waits}"
    told(f"all clocks {count} times ten years back and forth", measured, site.problems(host), ok=took_s < FRESH_S)


def retry(site: Site, seconds: float) -> None:
    """The hub is away, the agent waits to try again, all clocks go back."""
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    site.stop_hub()
    host.wait_for_retry()
    time.sleep(2 * seconds)  # the wait between two tries grows
    for clock in site.clocks(host).values():
        clock.set(-YEARS_S)
    site.start_hub()
    took_s = site.catch_up_s("run")
    site.wait_for_proofs(host, "run")
    what = "all clocks ten years back while the agent waits for its hub"
    told(what, f"delivered {took_s:.2f} s after the hub was back", site.problems(host), ok=took_s < FRESH_S)


def restarts(site: Site, _seconds: float) -> None:
    """A silent run, and an agent that forgets who was silent for a day, by a clock that goes three days ahead."""
    host = site.host("a")
    host.train("run", pad_bytes=20_000)
    site.wait_for_rows("run")
    serving.wait_for(lambda: host.freed_chunks() > 0, "the spool has let go of what is committed", 60)
    host.pause(is_on=True)
    forgotten = 0
    for ahead_s in (0.0, 3 * DAY_S, YEARS_S):
        for clock in site.clocks(host).values():
            clock.set(ahead_s)
        for _ in range(2):
            forgotten += host.restart_agent()
            serving.wait_for(host.is_known, "the agent knows the run's writers again", 60)
    host.pause(is_on=False)
    seen = site.watch("run", 1.0)
    site.wait_for_proofs(host, "run")
    what = "a silent run, clocks three days and ten years ahead, the agent restarted twice after each"
    measured = f"{forgotten} times a writer was forgotten, {seen.states[-1]}, nothing called lost to the user"
    told(what, measured, site.problems(host), ok=forgotten > 0)


def dead(site: Site, _seconds: float) -> None:
    """A run that is heard of by a hub ten years ahead, and killed; then the hub's clock is right again."""
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    site.clock.set(YEARS_S)
    site.wait_for_proofs(host, "run")
    site.watch("run", 6.0)  # two signs of life
    host.kill()
    site.clock.set(0)
    serving.wait_for(lambda: site.facts("run")["state"] == "lost contact", "the dead run is not running", 90)
    told("the hub's clock ten years ahead and right again, the run killed meanwhile", "lost contact", [])


def two_hosts(site: Site, seconds: float) -> None:
    """Two homes, one an hour ahead and one an hour back, at one hub; each with two runs."""
    hosts = [site.host(name) for name in ("ahead", "back")]
    for host, ahead_s in zip(hosts, (HOUR_S, -HOUR_S), strict=True):
        host.trainer_clock.set(ahead_s)
        host.agent_clock.set(ahead_s)
        for number in range(2):
            host.train(f"{host.directory.name}{number}")
    worst = 0.0
    for host in hosts:
        name = f"{host.directory.name}0"
        site.wait_for_rows(name)
        site.wait_for_proofs(host, name)
        worst = max(worst, site.watch(name, seconds).behind_s)
    problems = [problem for host in hosts for problem in site.problems(host)]
    told("two hosts two hours apart, two runs on each", f"{worst:.2f} s behind at most", problems, ok=worst < FRESH_S)


def frozen_ids(site: Site, _seconds: float) -> None:
    """Forty runs that begin at one and the same moment."""
    host = site.host("a")
    for clock in site.clocks(host).values():
        clock.freeze()
    began = [host.begin_many(20) for _ in range(2)]
    ids = {run for _, runs in began for run in runs}
    is_frozen = len({wall_s for wall_s, _ in began}) == 1 and host.trainer_clock.shows(began[0][0])
    writers = [w["writer_id"] for run in ids for w in site.ask(f"/runs/{clocks.PROJECT}/{run}/writers")["writers"]]
    rows = sum(site.facts(run)["rows"] for run in ids)
    what = "40 runs of two programs at one moment of a clock that stands still"
    measured = f"{len(ids)} run ids, {len(set(writers))} writer ids of {len(writers)} writers, {rows} rows"
    told(what, measured, [], ok=is_frozen and len(ids) == rows == 40 <= len(writers) == len(set(writers)))


def orphan(site: Site, _seconds: float) -> None:
    """The courier of a live trainer is killed and the clock goes back: another trainer's courier takes over."""
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    killed = host.kill_couriers()
    host.trainer_clock.set(-YEARS_S)
    began = time.monotonic()
    host.train("next")
    site.wait_for_rows("next")
    site.watch("run", 0)
    took_s = time.monotonic() - began
    site.wait_for_proofs(host, "run")
    told(
        f"{killed} courier killed, clocks ten years back, another trainer", f"taken over after {took_s:.1f} s",
        site.problems(host), ok=killed == 1 and took_s < COURIER_SCAN_S + FRESH_S,
    )  # fmt: skip


PARTS: list[Callable[[Site, float], None]] = [jumps, flips, retry, restarts, dead, two_hosts, frozen_ids, orphan]


def main(seconds: float) -> None:
    for part in PARTS:
        with tempfile.TemporaryDirectory(prefix="trackd-t12-", ignore_cleanup_errors=True) as directory:
            try:
                with clocks.site(Path(directory)) as site:
                    part(site, seconds)
            except AssertionError as error:
                told(part.__doc__ or part.__name__, "", [str(error)])
    leave()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)

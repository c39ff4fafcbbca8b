"""T8: a disk that is really full, of bytes and of files, under a trainer that goes on logging.

scripts/torture diskfull [seconds that the disk is full, default 20] [rows per second, default 1000]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import diskfull  # noqa: E402
from support.full_disk import Outcome, Size  # noqa: E402
from table import leave, report  # noqa: E402


def show(what: str, one: Outcome, *, may_lose: bool) -> None:
    """The rows of the table for one scenario."""
    declared = sum(loss["count"] for loss in one.losses)
    wrong = len(one.undeclared) + len(one.false_alarms) + one.doubled + one.uncounted
    report(
        "T8", f"{what}: {one.rows} rows, the disk full for {one.full_s:.0f} s ({one.refusals} writes refused)",
        f"{one.missing} missing, {declared} declared, {wrong} undeclared, doubled or falsely declared; "
        f"{one.passed} records reached the hub meanwhile; in the end the run is {one.state}",
        "declared = missing, 0" if may_lose else "0 missing, 0",
        ok=one.refusals > 0 and wrong == 0 and (may_lose or one.missing == 0) and one.state == "finished",
    )  # fmt: skip
    report(
        "T8", f"{what}: when there is space again",
        f"logging lost nothing after {one.resumed_s:.1f} s; in the hub after {one.caught_up_s:.1f} s; "
        f"agent started again {one.agent_restarts} times, {one.reads_failed} reads failed",
        "10 s, 0, 0",
        ok=one.resumed_s <= 10 and one.agent_restarts == 0 and one.reads_failed == 0,
    )  # fmt: skip
    report(
        "T8", f"{what}: log()",
        f"p50 {one.p50_us:.1f} us, p99 {one.p99_us:.0f} us, p99.9 {one.p999_us:.0f} us, longest {one.max_us:.0f} us; "
        f"json.dumps() of the same rows behind the same pauses p99 {one.peer_p99_us:.0f} us",
        "p99 50 us",
        ok=one.p99_us <= 50,
    )  # fmt: skip


def main(seconds: float, rate: int) -> None:
    """Every scenario with bytes, and those of a hub elsewhere with files."""
    if not diskfull.can_mount():
        report("T8", "a full disk", "no user and mount namespaces here", "all scenarios", ok=False)
        return
    for scenario in diskfull.SCENARIOS:
        may_lose = scenario != "hub up"
        for is_inodes in (False, True):
            size = Size(full_s=seconds, rate=rate, is_inodes=is_inodes)
            process = diskfull.start(scenario, size)
            try:
                one = diskfull.outcome(process, seconds + 400)
            except AssertionError as error:
                report("T8", scenario, f"no outcome: {str(error).strip().splitlines()[-1]}", "an outcome", ok=False)
                print(error, file=sys.stderr)
                continue
            show(f"{scenario}, {'inodes' if is_inodes else 'bytes'}", one, may_lose=may_lose)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    leave()

"""T2, T6, T7, T9: scripts/torture syscalls [step=1]. A real agent whose calls on its log kill it, fail,
fall short, lose data or take long; `step`: of the calls at which it is killed, every so-many-th."""

from __future__ import annotations

import asyncio
import errno
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import shim, syscalls
from table import leave, report


def show(test: str, what: str, outcome: syscalls.Outcome, began: float, *, wanted: int) -> None:
    """One row."""
    for problem in outcome.problems[:20]:
        print(f"  {problem}", flush=True)
    report(
        test, f"{what}: {outcome.rounds} rounds, fault fired in {outcome.fired}, {outcome.killed} killed",
        f"{len(outcome.problems)} rounds with records missing, doubled or declared lost, or an agent that ended; "
        f"slowest answer {outcome.slowest_answer_s:.2f} s; {time.monotonic() - began:.0f} s",
        "0, 2 s", ok=not outcome.problems and outcome.fired >= wanted and outcome.slowest_answer_s <= syscalls.HANG_S,
    )  # fmt: skip


async def main(directory: Path, step: int) -> None:
    """All of them with one hub."""
    stage = syscalls.Stage(directory)
    async with stage.open():
        began, outcome = time.monotonic(), syscalls.Outcome()
        await syscalls.kill_at_each_call(stage, outcome, step=step)
        show("T2", "SIGKILL at each system call on the log", outcome, began, wanted=outcome.rounds - 1)
        began, outcome = time.monotonic(), syscalls.Outcome()
        for kind in syscalls.AT_WORK:
            for number in syscalls.ERRORS:
                for when, times in ((1, 1), (2, 1), (3, 1), (1, shim.FOR_EVER)):
                    await syscalls.fail(stage, outcome, kind, "fail", number, when=when, times=times)
        for when in (1, 2, 3, 5):
            await syscalls.fail(stage, outcome, "pwrite", "short", 0, when=when)
        await syscalls.fail(stage, outcome, "pwrite", "short", 0, times=shim.FOR_EVER)
        show("T6", "errors and short writes", outcome, began, wanted=outcome.rounds * 3 // 4)
        print(f"  calls: {stage.shim.calls}", flush=True)
        began, outcome = time.monotonic(), syscalls.Outcome()
        for when in range(1, 9):
            await syscalls.fail(stage, outcome, "fdatasync", "drop", errno.EIO, when=when)
        show("T7", "a failed sync that loses what was unsynced", outcome, began, wanted=7)
        for delay_ms in (20, 500, 5000):
            began, outcome = time.monotonic(), syscalls.Outcome()
            lag_s, memory = await syscalls.slow(stage, outcome, delay_ms, 4 + delay_ms / 500)
            show("T9", f"each sync takes {delay_ms} ms", outcome, began, wanted=1)
            bound_mib = 256
            report(
                "T9", f"each sync takes {delay_ms} ms: durable behind received, memory of the agent",
                f"{lag_s:.2f} s, {memory >> 20} MiB", f"{bound_mib} MiB", ok=memory >> 20 <= bound_mib,
            )  # fmt: skip


if __name__ == "__main__":
    if shim.library() is None:
        report("T2", "no C compiler (gcc) for the shim", "", "", ok=False)
        leave()
    with tempfile.TemporaryDirectory(prefix="trackd-syscalls-", ignore_cleanup_errors=True) as place:
        asyncio.run(main(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else 1))
    leave()

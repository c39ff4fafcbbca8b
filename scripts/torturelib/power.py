"""T21: scripts/torture power [states=50000]. Power loss at every system call of the log: states that a disk
may legally be in, recovered by the real code. First simulated traces, then what strace saw the real daemon do."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import crash_states, recorded
from table import leave, report
from trackd_daemon.wal import writer as log_writer


def show(what: str, tally: crash_states.Tally, wanted: int, began: float) -> None:
    """The rows of one kind of trace."""
    for problem in tally.problems[:20]:
        print(f"  {problem}", flush=True)
    has_fired = min(tally.lossy, tally.torn, tally.exhausted) > 0
    report(
        "T21", f"{what}: {tally.states} distinct states of {tally.moments} moments in {tally.traces} traces",
        f"{len(tally.problems)} violations of I1p and I8; something not durable was lost in {tally.lossy}, "
        f"damage met in {tally.torn}; {time.monotonic() - began:.0f} s",
        "0", ok=not tally.problems and tally.states >= wanted and has_fired,
    )  # fmt: skip
    report(
        "T21", f"{what}: what is missing is a suffix", f"holes in {tally.holes} states",
        "0", ok=not tally.holes,
    )  # fmt: skip


def main(states: int) -> None:
    """Nine of ten states from simulated traces."""
    with tempfile.TemporaryDirectory(prefix="trackd-power-", dir="/dev/shm") as directory:
        began = time.monotonic()
        show("simulated", crash_states.simulated(Path(directory), states), states, began)
    if not recorded.is_possible():
        report("T21", "recorded", "strace is missing or may not trace", "", ok=False)
        return
    began, tally = time.monotonic(), crash_states.Tally()
    with mock.patch.object(log_writer, "_RESERVE_BYTES", 4096):
        while tally.states < states // 10 and not tally.problems:
            with tempfile.TemporaryDirectory(prefix="trackd-power-") as directory:
                recording = asyncio.run(recorded.record(Path(directory), 150))
                with tempfile.TemporaryDirectory(prefix="trackd-power-", dir="/dev/shm") as fast:
                    recorded.states(recording, Path(fast), tally, 40)
    show("the real daemon's calls", tally, states // 10, began)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
    leave()

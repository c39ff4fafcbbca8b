"""T22: 60,000 asynchronous exceptions inside log(); and 1,000 forks beside a live run; see scripts/torture-log."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from sdk.spooling import make_lane, read_rows
from sdk.test_lane import interrupt_loop
from support import forking
from table import leave, report


def interrupts(count: int) -> None:
    """As many asynchronous KeyboardInterrupts in a loop that logs."""
    with tempfile.TemporaryDirectory() as directory:
        lane = make_lane(Path(directory))
        lane._quota = 1 << 34
        began = time.monotonic()
        returned, hits = interrupt_loop(lane, count)
        lane.row({"i": -1})
        numbers = [row["i"] for _, row in read_rows(Path(directory), lane.writer_id)]  # fails at a gap in the seqs
        lost = len(set(returned) - set(numbers))
        repeated = len(numbers) - len(set(numbers))
        free = threading.Event()
        threading.Thread(target=lambda: (lane.row({"i": -2}), free.set()), daemon=True).start()
        held = not free.wait(10)
        report(
            "T22",
            f"{hits} asynchronous exceptions inside log() in {time.monotonic() - began:.0f} s",
            f"{len(returned)} calls returned: {lost} lost, {repeated} repeated, 0 gaps, lock left held: {held}",
            "0 gaps, 0 reused seqs, lock free",
            ok=not lost and not repeated and not held and hits >= count,
        )


def forks(count: int) -> None:
    """All kinds: scripts/torture forks."""
    found = forking.forks("os.fork", count)
    report(
        "T14",
        f"{count} of os.fork",
        f"{len(found.bad)} hung or died, {found.reused} seqs twice, {found.complete} of {found.children} children "
        f"complete, {found.parent_rows} rows of the parent's {found.problem or 'complete'}",
        "0, 0, all",
        ok=found.is_good,
    )


if __name__ == "__main__":
    random.seed(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    interrupted, forked = [int(word) for word in (sys.argv[1:] + ["60000", "0"][len(sys.argv) - 1 :])[:2]]
    if interrupted:
        interrupts(interrupted)
    if forked:
        forks(forked)
    leave()

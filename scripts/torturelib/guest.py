"""T24: courier and daemon as guests of the trainer, again and again.

`scripts/torture guest [trials of each, default 20]`
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import guest, processes  # noqa: E402
from table import leave, report  # noqa: E402


def pids_one(trials: int, home: Path, directory: Path) -> None:
    """Trainers that take courier and daemon with them."""
    if not guest.can_unshare():
        report("T24", "the trainer as PID 1", "no user and PID namespaces here", "0 lost", ok=False)
        return
    for number in range(trials):
        guest.pid_one(directory, f"one-{number}")
    guest.send_rest(300)
    import trackd  # noqa: PLC0415 - behind TRACKD_HOME

    runs = {run.id: [row["x"] for row in run.scan_history()] for run in trackd.Api().runs("guest")}
    whole = sum(runs.get(f"one-{number}") == list(range(2000)) for number in range(trials))
    report(
        "T24", f"{trials} trainers that were PID 1 of their namespace", f"{whole} of {trials} runs whole", "all",
        ok=whole == trials,
    )  # fmt: skip


def main(trials: int) -> None:
    """All four, in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="trackd-t24-", ignore_cleanup_errors=True) as name:
        home, directory = Path(name) / "home", Path(name) / "work"
        directory.mkdir()
        os.environ["TRACKD_HOME"] = str(home)
        os.environ["TRACKD_SILENT"] = "1"
        try:
            seen = [guest.children(directory) for _ in range(trials)]
            right = seen.count(guest.ONLY_ITS_OWN)
            report(
                "T24", f"{trials} trainers with a SIGCHLD handler that call os.wait()",
                f"{right} saw only their own child", "all", ok=right == trials,
            )  # fmt: skip
            took_s = [guest.pipeline(home, directory) for _ in range(trials)]
            report(
                "T24", f"{trials} times `python train.py | tee log`, its end after the trainer's",
                f"at most {max(took_s):.2f} s", "5 s", ok=max(took_s) < 5,
            )  # fmt: skip
            wrong = [text for _ in range(trials) for text in guest.priorities(home, directory)]
            report(
                "T24", f"priority, descriptors, signals and session of the guests of {trials} trainers",
                f"{len(wrong)} wrong {wrong[:3] or ''}".strip(), "0", ok=not wrong,
            )  # fmt: skip
            pids_one(trials, home, directory)
        finally:
            processes.stop_home(home)


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 20)
    leave()

"""T19: scripts/torture backlog [GiB=2]. So much of what cannot be compressed waits in the agent's log while
the hub is down; the agent is killed and started again, then the hub comes; its memory is looked at every 0.1 s."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import crowd
from table import leave, report

CLIENTS, RUNS, PAD_BYTES = 4, 4, 64 * 1024


def main(gib: float) -> None:
    """The backlog and its row of the table."""
    # Hex digits: the log holds half of what is logged.
    last = max(2, int(2 * gib * 2**30 / PAD_BYTES / CLIENTS / RUNS))
    directory = Path(tempfile.mkdtemp(prefix="trackd-backlog-"))
    try:
        outcome = crowd.drive(directory, CLIENTS, RUNS, last, pad_bytes=PAD_BYTES, timeout_s=1800)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for line in outcome.problems[:20]:
        print(f"  {line}")
    held = outcome.wal_bytes / 2**30
    wanted, mib = CLIENTS * RUNS * (last - 1), outcome.most_bytes / 2**20
    allowed = 256 + CLIENTS * RUNS * 4 / 1024
    report(
        "T19", f"{held:.2f} GiB of log, agent killed and back in {outcome.recovery_s:.1f} s, hub down, then up "
        f"({outcome.drain_s:.0f} s to drain)",
        f"at most {mib:.0f} MiB in {outcome.samples} samples; {outcome.held} of {wanted} rows", f"{allowed:.0f} MiB",
        ok=mib <= allowed and held >= 0.95 * gib and outcome.held == wanted and not outcome.problems,
    )  # fmt: skip


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
    leave()

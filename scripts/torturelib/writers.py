"""T13: scripts/torture writers [writers=8000] [records=1000000]. Eight client processes on one agent, which
is killed with everything in its log; then the hub comes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import crowd
from table import leave, report

CLIENTS = 8


def main(writers: int, records: int) -> None:
    """The crowd and its rows of the table."""
    runs, last = writers // CLIENTS, records // writers
    directory = Path(tempfile.mkdtemp(prefix="trackd-crowd-"))
    try:
        outcome = crowd.drive(directory, CLIENTS, runs, last, timeout_s=1800)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for line in outcome.problems[:20]:
        print(f"  {line}")
    wanted = CLIENTS * runs * (last - 1)
    report(
        "T13", f"{runs} runs × {CLIENTS} writers, {CLIENTS * runs * last} records, agent killed, hub afterwards",
        f"{outcome.held} of {wanted} rows, {len(outcome.problems)} runs with anything missing, doubled or lost; pushed "
        f"in {outcome.push_s:.0f} s, in the hub and read {outcome.drain_s:.0f} s after the hub's start", "0",
        ok=not outcome.problems and outcome.held == wanted > 0,
    )  # fmt: skip
    mib = outcome.most_bytes / 2**20
    report("T13", "agent's memory", f"{mib:.0f} MiB in {outcome.samples} samples", "512 MB", ok=0 < mib <= 488)
    report("T13", "agent's descriptors", f"{outcome.descriptors}", "2 × clients + 64",
           ok=outcome.descriptors <= 2 * CLIENTS + 64)  # fmt: skip
    for name, times, bar in (("received", outcome.received_s, 0.25), ("durable", outcome.durable_s, 0.5)):
        p50, p99 = times[len(times) // 2], times[int(0.99 * len(times))]
        print(f"  {name} at full load: p50 {p50:.2f}, p99 {p99:.2f} s (at an ordinary rate: {bar} s)")
    gib = outcome.wal_bytes / 2**30
    report("T13", f"recovery of {1024 * gib:.0f} MiB of log, start of Python included", f"{outcome.recovery_s:.1f} s",
           "10 s per GiB, at least 10 s", ok=outcome.recovery_s <= max(10.0, 10 * gib))  # fmt: skip


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*[*given, *[8000, 1_000_000][len(given) :]])
    leave()

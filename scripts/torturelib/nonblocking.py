"""T3, T9, T20: scripts/torture nonblocking [seconds of each fault=15] [rows per second=2000] [fault ...].

One logging thread while the agent or the courier is stopped, syncs take half a second, the hub is away, the spool is
full; then four threads and a GIL hog. 20 numbers and a row number per row: 2,000 rows/s are about 0.7 MB/s.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import hogged, nonblocking
from table import leave, report

TESTS = {"none": "T20", "slow disk": "T9", "hub away": "T10", "full": "T8"}


def one_fault(fault: str, seconds: float, rate: int) -> None:
    """A phase and its row."""
    directory = Path(tempfile.mkdtemp(prefix="trackd-nonblocking-"))
    try:
        outcome = nonblocking.hold(directory, fault, seconds, rate)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    p50, p99, p999, worst = (outcome.percentile_us(part) for part in (0.5, 0.99, 0.999, 1.0))
    report(
        f"T20 {TESTS.get(fault, 'T3')}", f"{fault} for {seconds:g} s: {len(outcome.took_ns)} calls ({outcome.proof})",
        f"p50 {p50:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f}, slowest {worst:.0f} µs; {outcome.held} of {outcome.logged} "
        f"rows, {outcome.lost} declared lost, {outcome.wrong} wrong", "p99 50 µs, p99.9 1 ms, 0 lost undeclared",
        ok=p99 <= 50 and p999 <= 1000 and outcome.is_exact and bool(outcome.proof) and len(outcome.took_ns) > 1000,
    )  # fmt: skip


def threads(seconds: float, rest_s: float) -> None:
    """Four threads and a GIL hog: log() and a lock, in turns."""
    directory = Path(tempfile.mkdtemp(prefix="trackd-hogged-"))
    try:
        outcome = hogged.compare(directory, seconds, rest_s)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    p999 = {kind: outcome.percentile_us(kind, 0.999) for kind in outcome.took_ns}
    for kind, name in (("lock", "an empty lock's"), ("held", "that of a lock held for 3 µs")):
        report(
            "T20", f"four threads and a GIL hog, {1000 * rest_s:g} ms between calls: {len(outcome.took_ns['log'])} and "
            f"{len(outcome.took_ns[kind])} calls",
            f"log() p99 {outcome.percentile_us('log', 0.99):.1f}, p99.9 {p999['log']:.1f} µs; lock p99 "
            f"{outcome.percentile_us(kind, 0.99):.1f}, p99.9 {p999[kind]:.1f} µs: {p999['log'] / p999[kind]:.2f}; "
            f"{outcome.held} of {outcome.logged} rows", f"p99.9 1.5 × {name}, 0 lost",
            ok=p999["log"] <= 1.5 * p999[kind] and outcome.held == outcome.logged > 0,
        )  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    seconds, rate = float(given[0]) if given else 15.0, int(given[1]) if len(given) > 1 else 2000
    for name in given[2:] or [*nonblocking.FAULTS, "threads"]:
        if name == "threads":
            threads(seconds, 0.0)
            threads(seconds, 0.001)
        else:
            one_fault(name, seconds, rate)
    leave()

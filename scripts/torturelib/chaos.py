#!/usr/bin/env python3
"""scripts/torture chaos [minutes]: three trainers log (default 10 minutes) while the daemon is killed every 5 s.

Prints the row of the torture table; exits 1 if a bar was missed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import table

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support import chaos, processes


def main(minutes: float) -> None:
    home = Path(tempfile.mkdtemp(prefix="trackd-chaos-"))
    try:
        outcome = chaos.storm(home, minutes * 60, interval_s=5.0, drain_s=300.0)
    finally:
        processes.stop_home(home)
        shutil.rmtree(home, ignore_errors=True)
    trainers = outcome.trainers
    logged, held = sum(t.logged for t in trainers), sum(t.held for t in trainers)
    warnings = max(len(t.warnings) for t in trainers)
    is_exact = all((t.exit_code, t.held, t.wrong) == (0, t.logged, 0) and t.logged > 0 for t in trainers)
    is_bounded = all(t.took_s < minutes * 60 + 15 for t in trainers)
    expected = max(1, int(minutes * 60 / 5) - 2)
    table.report(
        "chaos",
        f"{outcome.kills} SIGKILLs of the daemon in {minutes:g} min, three trainers",
        f"exits {[t.exit_code for t in trainers]}, at most {warnings} warning lines, {held} of {logged} rows in the "
        f"hub ({outcome.drained_s:.1f} s after the end), {sum(t.wrong for t in trainers)} wrong, slowest log() "
        f"{1000 * max(t.slowest_s for t in trainers):.1f} ms",
        "exit 0, 10 lines, all rows",
        ok=is_exact and is_bounded and warnings <= 10 and outcome.kills >= expected,
    )
    for line in sorted({line for t in trainers for line in t.warnings})[:20]:
        print(f"  printed: {line}")
    table.leave()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)

"""T1: scripts/torture kills [kills=500] [seed]. SIGKILL of trainer, courier, agent and hub, in all
combinations and phases, while trainers log. Seven of ten kills with a hub in a process of its own, the others with the
hub in the daemon. About a second for each."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import storm
from table import leave, report


def main(kills: int, seed: int) -> None:
    """Both kinds of hub, and their rows of the table."""
    separate = kills * 7 // 10
    for has_hub, share, name in ((True, separate, "hub elsewhere"), (False, kills - separate, "hub in the daemon")):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="trackd-kills-", ignore_cleanup_errors=True) as directory:
            outcome = storm.storm(Path(directory), share, has_hub=has_hub, seed=seed)
        died = ", ".join(f"{count} {who}s" for who, count in sorted(outcome.processes.items()))
        phases = ", ".join(f"{phase} {outcome.phases[phase]}" for phase in storm.PHASES)
        print(f"  {time.monotonic() - began:.0f} s; subsets: {dict(sorted(outcome.subsets.items()))}", flush=True)
        for problem in outcome.problems[:20]:
            print(f"  {problem}", flush=True)
        is_done = outcome.kills >= share and all(outcome.phases[phase] for phase in storm.PHASES)
        report(
            "T1", f"{outcome.kills} SIGKILLs, {name}: {died} ({phases})",
            f"{outcome.rows} rows, {len(outcome.problems)} runs with rows missing, doubled, wrong or out of order",
            "0", ok=not outcome.problems and is_done,
        )  # fmt: skip
        back = storm.percentile(outcome.back_s, 0.99)
        report(
            "T1", f"{name}: daemon back after a kill, p50 and p99 of {len(outcome.back_s)}",
            f"{storm.percentile(outcome.back_s, 0.5):.2f} s, {back:.2f} s", "p99 2 s", ok=back <= 2,
        )  # fmt: skip
        drained = max(outcome.drained_s, default=0.0)
        report(
            "T1", f"{name}: backlog drained after the faults, slowest of {len(outcome.drained_s)}",
            f"{drained:.1f} s", "10 s", ok=drained <= 10,
        )  # fmt: skip


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*[*numbers, *[500, 1][len(numbers) :]])
    leave()

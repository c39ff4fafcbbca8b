"""Simulated histories of the whole protocol, and every seeded mistake in it: rows of the torture table.

    scripts/torture sim [HISTORIES] [--seed N] [--mutant NAME] [--first N] [--jobs N]

200,000 histories by default, in two processes of the lowest priority. A broken promise is printed with the command that
repeats it. With --seed: that history alone, with its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

import table

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from sim import judge
from sim.mutants import MUTANTS

SEEDS = 2000


def main() -> int:
    """Exit code 1 if an invariant did not hold or a mutant survived."""
    parser = argparse.ArgumentParser(prog="scripts/torture-sim", description=__doc__)
    parser.add_argument("histories", type=int, nargs="?", default=200_000)
    parser.add_argument("--seed", type=int, help="run this one again, with its traceback")
    parser.add_argument("--mutant", help="with this mistake in")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        return judge.again(options.seed, options.mutant)
    os.nice(19)
    with get_context("spawn").Pool(options.jobs) as pool:
        histories(pool, options.first, options.histories)
        mutants(pool)
    table.leave()
    return 0


def histories(pool: Pool, first: int, count: int) -> None:
    """No history may break a promise, and every kind of fault must have fired."""
    begun, fired, bad = time.monotonic(), Counter[str](), 0
    for done, (seed, what, faults) in enumerate(
        pool.imap_unordered(judge.failure, range(first, first + count), chunksize=50), 1
    ):
        fired.update(faults)
        if what:
            bad += 1
            print(f"seed {seed}: {what}\n  again: scripts/torture-sim --seed {seed}", flush=True)
        if done % 10_000 == 0:
            print(f"  {done:,} histories in {time.monotonic() - begun:.0f} s, {bad} violations", flush=True)
    unfired = judge.FAULTS - fired.keys() if count >= judge.ENOUGH else set()
    print(f"  faults: {dict(sorted(fired.items()))}; never fired: {sorted(unfired)}", flush=True)
    table.report("simulator", f"{count:,} histories", f"{bad} violations", "0 violations", ok=bad == 0 and not unfired)


def mutants(pool: Pool) -> None:
    """Every mistake must be found."""
    found: list[int] = []
    for number, seed, what in pool.imap_unordered(judge.kill, [(number, SEEDS) for number in range(len(MUTANTS))]):
        print(f"  {MUTANTS[number].name:<62} {f'seed {seed}: {what[:80]}' if what else 'SURVIVED'}", flush=True)
        found += [seed] if what else []
    table.report(
        "simulator",
        f"{len(MUTANTS)} mutants",
        f"{len(found)} killed, the slowest at seed {max(found, default=0)}",
        f"all within {SEEDS:,} seeds",
        ok=len(found) == len(MUTANTS),
    )


if __name__ == "__main__":
    sys.exit(main())

"""`scripts/torture-sim`: many histories, all mutants, or one seed again."""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

from . import world
from .mutants import MUTANTS, Mutant

MUTANT_SEEDS = 2000


def failure(seed: int, mutant: Mutant | None = None) -> tuple[int, str, dict[str, int]]:
    """A history: its seed, what was violated ("" if nothing), and the faults that fired."""
    with ExitStack() as stack:
        stack.enter_context(world.small())
        if mutant is not None:
            stack.enter_context(mutant.applied())
        try:
            return seed, "", world.run(seed)
        except (Exception, KeyboardInterrupt) as error:
            return seed, f"{type(error).__name__}: {error}", {}


def first_killing(mutant: Mutant, seeds: Iterator[int] | range) -> tuple[int, str] | None:
    """The first seed that finds the mistake, and what it says."""
    for seed in seeds:
        _, what, _ = failure(seed, mutant)
        if what:
            return seed, what
    return None


def _kill(number: int) -> tuple[str, tuple[int, str] | None]:
    return MUTANTS[number].name, first_killing(MUTANTS[number], range(MUTANT_SEEDS))


def main() -> int:
    """Exit code 1 if an invariant did not hold or a mutant survived."""
    parser = argparse.ArgumentParser(prog="scripts/torture-sim", description=__doc__)
    parser.add_argument("histories", type=int, nargs="?", default=200_000)
    parser.add_argument("--seed", type=int, help="run this one again, with its traceback")
    parser.add_argument("--mutant", help="with this mistake in")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    if options.seed is not None:
        return _again(options.seed, options.mutant)
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        is_clean = _histories(pool, options.first, options.histories)
        return 0 if _mutants(pool) and is_clean else 1


def _again(seed: int, name: str | None) -> int:
    with ExitStack() as stack:
        stack.enter_context(world.small())
        for mutant in MUTANTS:
            if mutant.name == name:
                stack.enter_context(mutant.applied())
        try:
            print(world.run(seed))
            return 0
        except Exception:
            traceback.print_exc()
            return 1


def _histories(pool: "multiprocessing.pool.Pool", first: int, count: int) -> bool:
    begun, fired, bad = time.monotonic(), Counter[str](), 0
    for seed, what, faults in pool.imap_unordered(failure, range(first, first + count), chunksize=50):
        fired.update(faults)
        if what:
            bad += 1
            print(f"seed {seed}: {what}\n  again: scripts/torture-sim --seed {seed}", flush=True)
    took = time.monotonic() - begun
    print(f"{count:,} histories in {took:.0f} s, {bad} violations; faults: {dict(sorted(fired.items()))}", flush=True)
    return bad == 0


def _mutants(pool: "multiprocessing.pool.Pool") -> bool:
    is_clean = True
    for name, found in pool.imap(_kill, range(len(MUTANTS))):
        is_clean &= found is not None
        print(f"{name:<58} {f'seed {found[0]}: {found[1][:80]}' if found else 'SURVIVED'}", flush=True)
    return is_clean


if __name__ == "__main__":
    sys.exit(main())

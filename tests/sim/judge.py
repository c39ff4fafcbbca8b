"""One history and its verdict, for whoever runs many: the tests and scripts/torture sim."""

import traceback
from collections.abc import Iterable
from contextlib import ExitStack

from . import world
from .mutants import MUTANTS, Mutant

FAULTS = {
    "agent killed", "agent ended", "courier killed", "trainer killed", "kill", "interrupt", "hub crashed",
    "hub restored", "near link broken", "far link broken", "late request", "late near request", "power lost",
    "sync error", "write error", "row dropped", "log full", "disk filled", "no space for data", "no space for a file",
    "clock set",
}  # fmt: skip
"""Every kind of fault there is."""
ENOUGH = 300
"""In so many histories each of them fires."""


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


def first_killing(mutant: Mutant, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that finds the mistake, and what it says."""
    for seed in seeds:
        _, what, _ = failure(seed, mutant)
        if what:
            return seed, what
    return None


def kill(task: tuple[int, int]) -> tuple[int, int, str]:
    """(number of a mutant, most seeds) -> (its number, the seed that finds it, what that says; "" if none does)."""
    number, seeds = task
    seed, what = first_killing(MUTANTS[number], range(seeds)) or (seeds, "")
    return number, seed, what


def again(seed: int, mutant: str | None) -> int:
    """One history with its traceback; 1 if it fails."""
    with ExitStack() as stack:
        stack.enter_context(world.small())
        for one in MUTANTS:
            if one.name == mutant:
                stack.enter_context(one.applied())
        try:
            print(world.run(seed))
            return 0
        except Exception:
            traceback.print_exc()
            return 1

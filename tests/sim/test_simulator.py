"""The protocol under simulated faults, and mistakes in it that must be found (long form: scripts/torture-sim)."""

from collections import Counter

import pytest

from . import world
from .__main__ import failure, first_killing
from .mutants import MUTANTS, Mutant

HISTORIES = 400
SEEDS = 300
FAULTS = {
    "agent killed", "courier killed", "trainer killed", "kill", "interrupt", "hub crashed", "near link broken",
    "far link broken", "late request", "power lost", "sync error", "write error",
}  # fmt: skip


def test_no_history_breaks_a_promise() -> None:
    fired: Counter[str] = Counter()
    with world.small():
        for seed in range(HISTORIES):
            fired.update(world.run(seed))
    assert fired.keys() >= FAULTS, "some faults never fired"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_in_the_protocol_is_found(mutant: Mutant) -> None:
    assert first_killing(mutant, range(SEEDS)) is not None


def test_the_same_seed_is_the_same_history() -> None:
    assert failure(7) == failure(7)

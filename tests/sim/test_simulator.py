"""The protocol under simulated faults, and mistakes in it that must be found (long form: scripts/torture-sim)."""

from collections import Counter
from itertools import chain

import pytest

from . import world
from .judge import ENOUGH, FAULTS, failure, first_killing
from .mutants import MUTANTS, Mutant

SEEDS = 2000


def test_no_history_breaks_a_promise() -> None:
    fired: Counter[str] = Counter()
    with world.small():
        for seed in range(ENOUGH):
            fired.update(world.run(seed))
    assert fired.keys() >= FAULTS, "some faults never fired"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_in_the_protocol_is_found(mutant: Mutant) -> None:
    """First by the seed that found it when somebody last looked."""
    assert first_killing(mutant, chain([mutant.seed], range(SEEDS))) is not None


def test_the_same_seed_is_the_same_history() -> None:
    assert failure(7) == failure(7)

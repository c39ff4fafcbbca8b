"""The protocol under simulated faults, and mistakes in it that must be found (long form: scripts/torture-sim)."""

from collections import Counter
from itertools import chain

import pytest

from . import world
from .judge import ENOUGH, FAULTS, failure, first_killing
from .mutants import MUTANTS, Mutant

FOUND_BY = {
    "spool trimmed on received": 0,
    "collected on an ack that is not synced": 0,
    "recovery counts one too many": 0,
    "after a reconnect the courier goes on where it was": 0,
    "writer id used again": 0,
    "hub answers before it commits": 0,
    "spool trimmed on accepted, before the log's write": 0,
    "durable before the sync": 0,
    "recovery trusts the page cache": 0,
    "chunks freed as they are sent": 0,
    "a failed sync's frames are not written again": 1,
    "a failed append puts its batches behind": 1,
    "seq bumped before the copy": 3,
    "segments go when any writer is done": 3,
    "hub knows only the catalog": 4,
    "hub dedupes in memory only": 4,
    "a checkpoint without received seqs": 4,
    "one watermark for two stores": 4,
    "a loss does not advance next_seq": 7,
    "rows without space are not counted": 7,
    "a live spool is read beyond what is published": 32,
    "after a reconnect the route goes on where it was": 42,
    "published before the commit": 210,
    "holes are skipped in silence": 1639,
    "a checkpoint is compared with what is known": 272,
}
"""Mistakes, and a history that finds each; scripts/torture-sim looks for those that need more histories."""


def test_no_history_breaks_a_promise() -> None:
    fired: Counter[str] = Counter()
    with world.small():
        for seed in range(ENOUGH):
            fired.update(world.run(seed))
    assert fired.keys() >= FAULTS, "some faults never fired"


@pytest.mark.parametrize("mutant", [one for one in MUTANTS if one.name in FOUND_BY], ids=lambda one: one.name)
def test_a_mistake_in_the_protocol_is_found(mutant: Mutant) -> None:
    assert first_killing(mutant, chain([FOUND_BY[mutant.name]], range(50))) is not None


def test_every_mistake_can_be_made() -> None:
    """The code that a mutant changes is still there."""
    with world.small():
        for mutant in MUTANTS:
            with mutant.applied():
                pass


def test_the_same_seed_is_the_same_history() -> None:
    assert failure(7) == failure(7)

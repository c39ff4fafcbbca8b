"""Which of the offered seqs a writer's stores still need. Pure: numbers in, decisions out.

Every store of the hub keeps its own `next_seq` per writer and advances it over every seq, whether or not it keeps that
kind of record. What a batch means is decided once, against the slowest store; each store then takes its own rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from trackd_daemon.model import Batch

FIRST_SEQ = 1


@dataclass(frozen=True, slots=True)
class Position:
    """Next seq that each store expects of one writer."""

    catalog: int = FIRST_SEQ
    series: int = FIRST_SEQ

    @property
    def committed(self) -> int:
        """Every seq below it is in every store."""
        return min(self.catalog, self.series)


@dataclass(frozen=True, slots=True)
class Take:
    """A batch, or the rest of one, that at least one store needs."""

    batch: Batch
    first_seq: int
    """First seq that is new to some store; the batch's records before it are duplicates everywhere."""

    @property
    def next_seq(self) -> int:
        """Seq after the last."""
        return self.batch.next_seq

    @property
    def count(self) -> int:
        """Records that some store needs."""
        return self.batch.next_seq - self.first_seq


@dataclass(slots=True)
class Plan:
    """What one group commit takes of one writer."""

    writer_id: bytes
    position: Position
    takes: list[Take] = field(default_factory=list)
    is_gap: bool = False

    @property
    def next_seq(self) -> int:
        """Expected by every store once the takes are applied."""
        return self.takes[-1].next_seq if self.takes else self.position.committed


def plan(positions: Mapping[bytes, Position], batches: Iterable[Batch]) -> list[Plan]:
    """Decide for each batch: duplicate (left out), overlap (its new tail is taken), next (taken) or gap (left out).

    A gap ends the writer's turn only for batches beyond it: a later batch that fits is still taken. LOSS batches
    follow the same rule. Writers come back in order of their first batch.
    """
    plans: dict[bytes, Plan] = {}
    for batch in batches:
        entry = plans.get(batch.writer_id)
        if entry is None:
            entry = plans[batch.writer_id] = Plan(batch.writer_id, positions.get(batch.writer_id, Position()))
        expected = entry.next_seq
        if batch.first_seq > expected:
            entry.is_gap = True
        elif batch.next_seq > expected:
            entry.takes.append(Take(batch, max(expected, batch.first_seq)))
    return list(plans.values())


def by_writer(batches: Sequence[Batch]) -> list[list[Batch]]:
    """The batches of each writer, in order."""
    groups: dict[bytes, list[Batch]] = {}
    for batch in batches:
        groups.setdefault(batch.writer_id, []).append(batch)
    return list(groups.values())


@dataclass(slots=True)
class Piece:
    """Records [first_seq, next_seq) of one batch, and which stores still need them."""

    batch: Batch
    first_seq: int
    next_seq: int
    for_catalog: bool
    for_series: bool


def pieces(take: Take, position: Position) -> list[Piece]:
    """Cut a take where one store is ahead of the other."""
    cuts = sorted({take.first_seq, take.next_seq, *(
        seq for seq in (position.catalog, position.series) if take.first_seq < seq < take.next_seq
    )})  # fmt: skip
    return [
        Piece(take.batch, first, after, first >= position.catalog, first >= position.series)
        for first, after in pairwise(cuts)
    ]

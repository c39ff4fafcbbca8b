"""How far each writer's stream has come at an agent, and what to do with the next batch of it. Pure."""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from trackd_proto import limits

FORGET_S = 24 * 3600.0
_LAST_SEQ = (1 << 63) - 1


class InvalidBatchError(ValueError):
    """A batch that no correct client sends."""


class Verdict(enum.Enum):
    """What to do with a batch."""

    TAKE = enum.auto()
    TRIM = enum.auto()
    """Take what lies behind the expected seq; the rest is here already."""
    DUPLICATE = enum.auto()
    GAP = enum.auto()
    """It begins beyond the expected seq: the sender must go back."""


@dataclass(slots=True)
class Marks:
    """One writer."""

    accepted: int = 0
    """Handed on, perhaps only in memory; the next seq expected is one more."""
    received: int = 0
    durable: int = 0
    committed: int = 0
    route: str = ""
    project: str = ""
    run_id: str = ""
    silent_since_s: float | None = None
    """When it was first seen (by `Ledger.forget_silent`) with nothing left to do; None: it was active since."""


def check(writer_id: bytes, first_seq: int, count: int, data_bytes: int, loss_reason: str) -> None:
    """Raises InvalidBatchError."""
    if len(writer_id) != 16:
        raise InvalidBatchError(f"a writer id has 16 bytes, not {len(writer_id)}")
    if first_seq < 1 or count < 1 or first_seq + count > _LAST_SEQ:
        raise InvalidBatchError(f"no such seqs: {count} from {first_seq}")
    if data_bytes > limits.MAX_BATCH_BYTES:
        raise InvalidBatchError(f"a batch of {data_bytes} bytes is over the limit of {limits.MAX_BATCH_BYTES}")
    if loss_reason and (data_bytes or loss_reason not in limits.LOSS_REASONS):
        raise InvalidBatchError(f"bad declaration of a loss: {loss_reason!r} with {data_bytes} bytes")
    if not loss_reason and data_bytes < count:
        raise InvalidBatchError(f"{count} records do not fit into {data_bytes} bytes")


class Ledger:
    """The marks of all writers of an agent."""

    def __init__(self) -> None:
        self.writers: dict[bytes, Marks] = {}
        self.lost_records = 0
        """Declared lost since the start."""

    def restore(self, writer_id: bytes, received: int, committed: int, owner: tuple[str, str, str]) -> None:
        """What recovery found in the log, all of it durable. `owner`: route, project, run id."""
        top = max(received, committed)
        self.writers[writer_id] = Marks(top, top, top, committed, *owner)

    def marks(self, writer_id: bytes) -> Marks:
        """The writer's marks; a new writer begins at zero."""
        known = self.writers.get(writer_id)
        if known is None:
            known = self.writers[writer_id] = Marks()
        return known

    def judge(self, writer_id: bytes, first_seq: int, count: int) -> tuple[Verdict, int]:
        """What to do with seqs [first_seq, first_seq + count), and the seq expected next."""
        marks = self.marks(writer_id)
        expected = marks.accepted + 1
        if first_seq > expected:
            return Verdict.GAP, expected
        if first_seq + count <= expected:
            return Verdict.DUPLICATE, expected
        return (Verdict.TAKE if first_seq == expected else Verdict.TRIM), expected

    def accept(self, writer_id: bytes, last_seq: int, owner: tuple[str, str, str]) -> None:
        """Everything up to `last_seq` has been handed on. `owner`: route, project, run id."""
        marks = self.marks(writer_id)
        marks.accepted = last_seq
        marks.route, marks.project, marks.run_id = owner
        marks.silent_since_s = None

    def advance(
        self, received: Mapping[bytes, int], durable: Mapping[bytes, int], committed: Mapping[bytes, int]
    ) -> set[bytes]:
        """Marks have moved; the writers of which one did."""
        changed = set()
        for writer_id, seq in received.items():
            marks = self.marks(writer_id)
            if seq > marks.received:
                marks.received = seq
                changed.add(writer_id)
        for writer_id, seq in durable.items():
            marks = self.marks(writer_id)
            if seq > marks.durable:
                marks.durable = seq
                changed.add(writer_id)
        for writer_id, seq in committed.items():
            marks = self.marks(writer_id)
            if seq > marks.committed:
                marks.committed = seq
                # A hub may know more than this log (it was moved, or the data went another way).
                marks.accepted, marks.received = max(marks.accepted, seq), max(marks.received, seq)
                changed.add(writer_id)
        return changed

    def uncommitted(self, writer_ids: Iterable[bytes] = ()) -> int:
        """Records accepted and not committed yet (of these writers; none given: of all)."""
        chosen = [self.writers[w] for w in writer_ids if w in self.writers] or list(self.writers.values())
        return sum(marks.accepted - marks.committed for marks in chosen)

    def forget_silent(self, now_s: float, is_needed: Callable[[bytes, str], bool]) -> set[str]:
        """Drop the writers that are wholly committed and were silent for a day; the routes of those dropped.

        To be called every now and then. `now_s`: of any monotonic clock. `is_needed`: somebody counts on this writer
        (of this route) being known, however silent it is.
        """
        silent = []
        for writer_id, marks in self.writers.items():
            if marks.accepted > marks.committed or is_needed(writer_id, marks.route):
                marks.silent_since_s = None
            elif marks.silent_since_s is None:
                marks.silent_since_s = now_s
            elif now_s - marks.silent_since_s >= FORGET_S:
                silent.append(writer_id)
        return {self.writers.pop(writer_id).route for writer_id in silent}

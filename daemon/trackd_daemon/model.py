"""Values that the daemon's parts hand to each other. Knows nothing else (layer 0)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one writer, uncompressed, on their way into the hub's stores."""

    writer_id: bytes
    """16 bytes, UUIDv7."""
    project: str
    run_id: str
    first_seq: int
    count: int
    data: bytes
    """Length-prefixed records (trackd_proto.batch); empty for a loss."""
    loss_reason: str = ""
    """Set: the seqs [first_seq, first_seq + count) are declared lost."""

    @property
    def next_seq(self) -> int:
        """The seq after the last one."""
        return self.first_seq + self.count


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the hub did with a writer's batches in one group commit."""

    writer_id: bytes
    next_seq: int
    """Every seq below it is in every store."""
    is_gap: bool = False
    """Something began beyond next_seq and was not taken; the sender rewinds to next_seq."""


@dataclass(frozen=True, slots=True)
class RunChange:
    """A committed change of one run, told to whoever watches (SSE, notices)."""

    project: str
    run_id: str
    version: int
    """Grows with every commit that touches the run."""
    keys: Sequence[str] = ()
    """History keys that got points, at most 1,000 of them; empty with has_more_keys means "many"."""
    has_more_keys: bool = False
    last: Mapping[str, object] = field(default_factory=dict)
    """Summary values changed by this commit (at most 1,000)."""
    fields: Sequence[str] = ()
    """Changed parts of the run itself: "state", "config", "summary", "name", "created", "deleted", …"""

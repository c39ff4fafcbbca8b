"""What waits for the log: batches in order, acks merged, and what a full log needs no more. Pure; the caller locks."""

from collections import deque
from collections.abc import Mapping, Sequence

from trackd_proto.v1 import ingest_pb2


class Backlog:
    """Handed in and not appended yet."""

    def __init__(self) -> None:
        self._batches: deque[ingest_pb2.Batch] = deque()
        self._acks: dict[bytes, int] = {}
        self._dropped_bytes = 0

    @property
    def has_batches(self) -> bool:
        """Whether records wait."""
        return bool(self._batches)

    @property
    def has_acks(self) -> bool:
        """Whether acks wait."""
        return bool(self._acks)

    def append(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """These belong to the log from now on, in order per writer."""
        self._batches.extend(batches)

    def acknowledge(self, acks: Mapping[bytes, int], *, is_full: bool) -> None:
        """These seqs are committed upstream. `is_full`: the log takes nothing, so that what waits for it went past it,
        and what of that is committed need not be written any more."""
        for writer_id, seq in acks.items():
            self._acks[writer_id] = max(seq, self._acks.get(writer_id, 0))
        if is_full:
            kept = deque(b for b in self._batches if b.first_seq + b.count - 1 > self._acks.get(b.writer_id, 0))
            self._dropped_bytes += sum(len(b.data) for b in self._batches) - sum(len(b.data) for b in kept)
            self._batches = kept

    def take(self, most_bytes: int, *, is_full: bool) -> tuple[list[ingest_pb2.Batch], dict[bytes, int]]:
        """What goes into one append: batches of about `most_bytes`, none if the log is full, and all acks."""
        batches: list[ingest_pb2.Batch] = []
        size = 0
        while self._batches and size < most_bytes and not is_full:
            batches.append(self._batches.popleft())
            size += len(batches[-1].data)
        acks, self._acks = self._acks, {}
        return batches, acks

    def give_back(self, batches: Sequence[ingest_pb2.Batch], acks: Mapping[bytes, int]) -> None:
        """The append failed as a whole: these wait again, before everything else."""
        self._batches.extendleft(reversed(batches))
        self._acks = dict(acks) | self._acks

    def take_dropped(self) -> int:
        """Bytes that need not be written any more, since the last call."""
        dropped, self._dropped_bytes = self._dropped_bytes, 0
        return dropped

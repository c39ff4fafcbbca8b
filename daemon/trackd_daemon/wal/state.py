"""What the log holds: a fold over its frames, the same while appending and in recovery. Pure.

It answers which seq of a writer comes next, which segments hold records that are not committed yet, and therefore which
segments may go.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from trackd_daemon.wal.frames import Checkpoint

_FORGET_US = 24 * 3600 * 1_000_000


class Position(NamedTuple):
    """A place in the log."""

    segment_no: int
    offset: int


@dataclass(slots=True)
class WriterLog:
    """One writer, as far as the log knows it."""

    writer_id: bytes
    route: str
    project: str
    run_id: str
    received: int = 0
    """Highest contiguous seq in the log."""
    acked: int = 0
    """Highest seq committed upstream, as said by a frame that is synced."""
    active_us: int = 0
    newest: int = 0
    """The last segment that holds records of it, committed or not."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """(segment_no, last seq in it), ascending, of segments that hold records not acked yet."""

    def note(self, segment_no: int, last_seq: int) -> None:
        """Records up to `last_seq` stand in this segment."""
        if self.spans and self.spans[-1][0] == segment_no:
            self.spans[-1] = (segment_no, max(last_seq, self.spans[-1][1]))
        else:
            self.spans.append((segment_no, last_seq))

    def trim(self) -> None:
        """Forget the segments that only hold acked records."""
        while self.spans and self.spans[0][1] <= self.acked:
            self.spans.pop(0)


class LogState:
    """The log's writers and segments."""

    def __init__(self) -> None:
        self.writers: dict[bytes, WriterLog] = {}
        self.segments: dict[int, int] = {}
        """Bytes by segment number, ascending."""
        self._checkpointed: dict[bytes, int] = {}
        """What the last checkpoint loaded said of received seqs."""
        self._checkpointed_before: dict[bytes, int] = {}
        """What the one before it said."""

    def writer(self, writer_id: bytes, route: str, project: str, run_id: str) -> WriterLog:
        """The writer's entry, made if it is new."""
        known = self.writers.get(writer_id)
        if known is None:
            known = self.writers[writer_id] = WriterLog(writer_id, route, project, run_id)
        return known

    def append(self, segment_no: int, writer: WriterLog, last_seq: int, now_us: int) -> bool:
        """Records up to `last_seq` stand in the log. False if the log has them already.

        Then the segment is needed all the same: of two copies, one may have been left in doubt by a failed sync.
        """
        writer.newest = max(writer.newest, segment_no)
        if last_seq > writer.acked:
            writer.note(segment_no, last_seq)
        if last_seq <= writer.received:
            return False
        writer.received = last_seq
        writer.active_us = max(writer.active_us, now_us)
        return True

    def roll_back(self, writer_id: bytes, received: int) -> None:
        """The newest records did not reach the disk (a failed sync); they will be appended again."""
        writer = self.writers[writer_id]
        writer.received = min(writer.received, received)
        # The spans stay: they only keep a segment longer than needed.

    def forget_segments(self, gone: Collection[int]) -> None:
        """What these segments hold stands in later ones too."""
        for writer in self.writers.values():
            writer.spans = [span for span in writer.spans if span[0] not in gone]

    def acknowledge(self, acks: Iterable[tuple[bytes, int]]) -> None:
        """These seqs are committed upstream, and a synced frame says so."""
        for writer_id, seq in acks:
            writer = self.writers.get(writer_id)
            if writer is not None and seq > writer.acked:
                writer.acked = seq
                writer.received = max(writer.received, seq)
                writer.trim()

    def load_checkpoint(
        self, rows: Iterable[Checkpoint], previous_segment: int | None, *, goes_on: bool = False
    ) -> None:
        """The state before a segment; what a writer got since the checkpoint before stands in `previous_segment`.

        Since that checkpoint, not since what is known: records of a failed sync stand in two segments, and the disk may
        have them in the later one only. `goes_on`: these are more rows of the checkpoint that was loaded last.
        """
        if not goes_on:
            self._checkpointed_before, self._checkpointed = self._checkpointed, {}
        before = self._checkpointed_before
        for row in rows:
            self._checkpointed[row.writer_id] = row.received
            writer = self.writer(row.writer_id, row.route, row.project, row.run_id)
            writer.active_us = max(writer.active_us, row.active_us)
            writer.received = max(writer.received, row.received)
            if previous_segment is not None and row.received > before.get(row.writer_id, 0):
                writer.newest = max(writer.newest, previous_segment)
                if row.received > writer.acked:
                    writer.note(previous_segment, row.received)
            if row.acked > writer.acked:
                writer.acked = row.acked
                writer.trim()

    def checkpoint(self, now_us: int) -> list[Checkpoint]:
        """The writers a new segment must speak of.

        Forgets those that are committed, silent for a day, and in no segment any more: as long as one could not be
        removed, something must say that what is in it is committed.
        """
        oldest_us, oldest = now_us - _FORGET_US, min(self.segments, default=1 << 62)
        silent = [
            w.writer_id
            for w in self.writers.values()
            if w.acked >= w.received and w.newest < oldest and w.active_us < oldest_us
        ]
        for writer_id in silent:
            del self.writers[writer_id]
        return [
            Checkpoint(w.writer_id, w.received, w.acked, w.route, w.project, w.run_id, w.active_us)
            for w in self.writers.values()
        ]

    def needed(self, route: str | None = None) -> set[int]:
        """The segments that hold records not committed yet (of one route)."""
        return {
            segment_no
            for writer in self.writers.values()
            if route is None or writer.route == route
            for segment_no, last_seq in writer.spans
            if last_seq > writer.acked
        }

    def collectable(self, current: int) -> list[int]:
        """Segments that may be removed: not the newest one, and all their records are acked by synced frames."""
        needed = self.needed()
        return [number for number in self.segments if number < current and number not in needed]

    def pending(self) -> Iterator[WriterLog]:
        """Writers with records that are not committed yet."""
        return (writer for writer in self.writers.values() if writer.acked < writer.received)

    @property
    def bytes(self) -> int:
        """Of all segments together."""
        return sum(self.segments.values())

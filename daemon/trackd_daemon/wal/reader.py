"""Reads the durable part of the log in order, for one route. Memory does not depend on how much there is."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from trackd_proto import segment
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import files
from trackd_daemon.wal.state import Position

_SCAN_BYTES: Final = 32 * MIB
"""Of other routes' records that one read() passes over: who waits for it may have to stop."""
_TRIES: Final = 3
"""Reads that fail before what cannot be read counts as damaged."""


class RouteReader:
    """A cursor over the log. Used by one thread at a time."""

    def __init__(self, directory: Path, route: str, segments: Callable[[], Sequence[int]]) -> None:
        """`segments`: the numbers of the segments that exist, ascending."""
        self._directory = directory
        self._segments = segments
        self._route = route
        self._position = Position(0, 0)
        self._file: files.SegmentReader | None = None
        self._failures: Counter[int] = Counter()
        """Reads that failed, by segment."""

    def rewind(self) -> None:
        """Go back to the oldest record that the log still has."""
        self.close()
        self._position = Position(0, 0)

    def read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        """Batches of this route between the cursor and `end`, of about `max_bytes` of records, and go on behind them.

        True: everything before `end` has been read. Raises OSError: read again later, from where rewind() leads.
        """
        try:
            return self._read(end, max_bytes)
        except OSError:
            if self._file is not None:  # opened, and not readable
                self._failures[self._position.segment_no] += 1
            self.close()
            raise

    def _read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        batches: list[ingest_pb2.Batch] = []
        size = passed = 0
        for number in self._segments():
            if number < self._position.segment_no:
                continue
            if number > end.segment_no:
                break
            if number > self._position.segment_no:
                self.close()
                self._position = Position(number, 0)
            for frame_bytes, batch in self._batches(number, end):
                passed += frame_bytes
                if batch is not None:
                    batches.append(batch)
                    size += max(batch.raw_bytes, len(batch.data), frame_bytes)
                if size >= max_bytes or passed >= _SCAN_BYTES:
                    return batches, False
        return batches, True

    def close(self) -> None:
        """Release the descriptor."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _batches(self, number: int, end: Position) -> Iterator[tuple[int, ingest_pb2.Batch | None]]:
        """Every frame behind the cursor: its bytes, and its batch if it is of this route."""
        try:
            if self._file is None:
                forgives = self._failures[number] >= _TRIES
                self._file = files.SegmentReader(files.path_of(self._directory, number), forgives=forgives)
            if self._position.offset == 0 and self._file.is_misplaced(number):
                return  # its records would come out of order; what is not in its place is declared lost
        except FileNotFoundError:
            return  # removed since: everything in it was committed
        size = end.offset if number == end.segment_no else self._file.size
        for found in self._file.frames(self._position.offset, size):
            self._position = Position(number, found.end)
            yield found.end - found.offset, self._mine(found)

    def _mine(self, found: segment.Frame | segment.Damage) -> ingest_pb2.Batch | None:
        if isinstance(found, segment.Frame) and found.type in (segment.DATA, segment.LOSS):
            with suppress(DecodeError):
                batch = ingest_pb2.Batch.FromString(found.payload)
                return batch if batch.route == self._route else None
        return None

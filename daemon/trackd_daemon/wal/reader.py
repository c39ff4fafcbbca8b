"""Reads the durable part of the log in order, for one route. Memory does not depend on how much there is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import files
from trackd_daemon.wal.state import Position


class RouteReader:
    """A cursor over the log. Used by one thread at a time."""

    def __init__(self, directory: Path, route: str, segments: Callable[[], Sequence[int]]) -> None:
        """`segments`: the numbers of the segments that exist, ascending."""
        self._directory = directory
        self._segments = segments
        self._route = route
        self._position = Position(0, 0)
        self._file: files.SegmentReader | None = None

    def rewind(self) -> None:
        """Go back to the oldest record that the log still has."""
        self.close()
        self._position = Position(0, 0)

    def read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        """Batches of this route between the cursor and `end`, of about `max_bytes` of records, and go on behind them.

        True: everything before `end` has been read.
        """
        batches: list[ingest_pb2.Batch] = []
        size = 0
        for number in self._segments():
            if number < self._position.segment_no:
                continue
            if number > end.segment_no:
                break
            if number > self._position.segment_no:
                self.close()
                self._position = Position(number, 0)
            for batch in self._batches(number, end):
                batches.append(batch)
                size += max(batch.raw_bytes, len(batch.data))
                if size >= max_bytes:
                    return batches, False
        return batches, True

    def close(self) -> None:
        """Release the descriptor."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _batches(self, number: int, end: Position) -> Iterator[ingest_pb2.Batch]:
        try:
            if self._file is None:
                self._file = files.SegmentReader(files.path_of(self._directory, number))
            if self._position.offset == 0 and self._file.is_misplaced(number):
                return  # its records would come out of order; what is not in its place is declared lost
        except FileNotFoundError:
            return  # removed since: everything in it was committed
        size = end.offset if number == end.segment_no else self._file.size
        for found in self._file.frames(self._position.offset, size):
            self._position = Position(number, found.end)
            if isinstance(found, segment.Frame) and found.type in (segment.DATA, segment.LOSS):
                with suppress(DecodeError):
                    batch = ingest_pb2.Batch.FromString(found.payload)
                    if batch.route == self._route:
                        yield batch

"""What of a recovered log may not be on the disk: to be written again before anybody is told that it is durable.

A killed daemon leaves frames that recovery reads back from the page cache. A sync of their file proves nothing, since
one that failed before has marked its pages clean. A seal does: it was synced before the next segment began.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import files
from trackd_daemon.wal.state import LogState


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """A frame to be written again."""

    writer_id: bytes
    first_seq: int
    last_seq: int
    segment_no: int
    offset: int
    end: int
    frame_type: int


def unsealed(directory: Path, numbers: Iterable[int]) -> list[int]:
    """The segments behind the last complete one, ascending."""
    found: list[int] = []
    for number in sorted(numbers, reverse=True):
        with files.SegmentReader(files.path_of(directory, number)) as reader:
            if reader.is_sealed():
                break
        found.insert(0, number)
    return found


def find(directory: Path, numbers: Iterable[int], state: LogState) -> list[Copy]:
    """The frames of these segments with records that are not committed: each record once, in order per writer.

    Several segments may hold the same records, and any of them may be damaged.
    """
    found: list[Copy] = []
    for number in numbers:
        with files.SegmentReader(files.path_of(directory, number)) as reader:
            found += [copy for frame in reader.frames() if (copy := _copy_of(frame, number, state))]
    tops: dict[bytes, int] = {}
    chosen = []
    for copy in sorted(found):
        if copy.last_seq > tops.get(copy.writer_id, 0):
            tops[copy.writer_id] = copy.last_seq
            chosen.append(copy)
    return chosen


def read(directory: Path, copies: Iterable[Copy]) -> Iterator[tuple[Copy, bytes]]:
    """The payloads of these frames; one that cannot be read any more is left out."""
    with ExitStack() as stack:
        readers: dict[int, files.SegmentReader] = {}
        for copy in copies:
            if copy.segment_no not in readers:
                path = files.path_of(directory, copy.segment_no)
                readers[copy.segment_no] = stack.enter_context(files.SegmentReader(path))
            frame = next(readers[copy.segment_no].frames(copy.offset, copy.end), None)
            if isinstance(frame, segment.Frame):
                yield copy, frame.payload


def _copy_of(frame: segment.Frame | segment.Damage, number: int, state: LogState) -> Copy | None:
    if isinstance(frame, segment.Damage) or frame.type not in (segment.DATA, segment.LOSS):
        return None
    try:
        batch = ingest_pb2.Batch.FromString(frame.payload)
    except DecodeError:
        return None
    last_seq = batch.first_seq + batch.count - 1
    if last_seq <= state.writer(batch.writer_id, batch.route, batch.project, batch.run_id).acked:
        return None
    return Copy(batch.writer_id, batch.first_seq, last_seq, number, frame.offset, frame.end, frame.type)

"""Read back the log's state at start. Segments before the newest are known by the checkpoint that follows them."""

from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import files, frames
from trackd_daemon.wal.state import LogState

_UNREADABLE = (DecodeError, ValueError, RecursionError)
"""What protobuf and msgspec raise for bytes that are whole and yet make no sense (written by a faulty version)."""


@dataclass(slots=True)
class Recovered:
    """What was found."""

    state: LogState
    next_segment: int
    next_lsn: int
    warnings: list[str] = field(default_factory=list)
    torn: dict[int, int] = field(default_factory=dict)
    """Segments with a torn end, and where it begins: what is behind was never synced and does not count."""


def recover(directory: Path, now_us: int) -> Recovered:
    """The state of the log in `directory`. Raises UnsupportedVersion before anything else; changes nothing.

    `now_us` counts as the last activity of writers seen in data frames. Nothing is ever appended to a segment of an
    earlier incarnation; a torn end is cut off by the writer (`torn`).
    """
    files.check_versions(directory)
    found = Recovered(LogState(), next_segment=1, next_lsn=1)
    existing = _in_place(directory, found)
    previous: int | None = None
    for number, following in zip(existing, [*existing[1:], None], strict=False):
        path = files.path_of(directory, number)
        with files.SegmentReader(path) as reader:
            found.state.segments[number] = reader.size
            # Only what a seal ends is known by the checkpoint behind it.
            is_known = following is not None and reader.is_sealed() and _has_checkpoint(directory, following)
            _load(reader, _Place(number, previous, now_us), found, only_checkpoint=is_known)
        previous = number
    found.next_segment = max(files.numbers(directory), default=0) + 1
    return found


def _in_place(directory: Path, found: Recovered) -> list[int]:
    """The segments that are what their names say. Others are left alone: a copy of an old segment would hide what newer
    ones hold, and out of order they would make holes where there are none."""
    existing = []
    for number in files.numbers(directory):
        path = files.path_of(directory, number)
        with files.SegmentReader(path) as reader:
            if not reader.is_misplaced(number):
                existing.append(number)
                continue
            inside = reader.header().segment_no
        rightful = files.path_of(directory, inside)
        found.warnings.append(
            f"{path} is segment {inside} of the log and was renamed or copied; it is not read and not removed: "
            f"stop the daemon and move it to {rightful.name} if there is none, delete it otherwise"
        )
    return existing


def _has_checkpoint(directory: Path, number: int) -> bool:
    with files.SegmentReader(files.path_of(directory, number)) as reader:
        for found in reader.frames():
            if not isinstance(found, segment.Frame) or found.type != segment.CKPT:
                return False
            try:
                if len(frames.decode_checkpoints(found.payload)) != frames.PART_ROWS:
                    return True
            except _UNREADABLE:
                return False
    return False


@dataclass(frozen=True, slots=True)
class _Place:
    number: int
    previous: int | None
    now_us: int


def _load(reader: files.SegmentReader, place: _Place, found: Recovered, *, only_checkpoint: bool) -> None:
    torn_from: int | None = None
    goes_on = False
    for item in reader.frames():
        if isinstance(item, segment.Damage):
            torn_from = reader.torn_from() if torn_from is None else torn_from
            if item.offset >= torn_from:
                found.torn[place.number] = found.state.segments[place.number] = torn_from
                found.warnings.append(
                    f"segment {place.number}: damaged from {torn_from} on, {reader.size - torn_from} bytes that were "
                    f"not synced yet: {item.reason}"
                )
                return
            size = item.end - item.offset
            found.warnings.append(f"segment {place.number}: {size} damaged bytes at {item.offset}: {item.reason}")
            continue
        found.next_lsn = max(found.next_lsn, item.lsn + 1)
        try:
            goes_on = _apply(item, place, found.state, goes_on=goes_on)
        except _UNREADABLE as error:
            found.warnings.append(f"segment {place.number}: unreadable frame at {item.offset}: {error}")
        if only_checkpoint and not goes_on:
            return


def _apply(frame: segment.Frame, place: _Place, state: LogState, *, goes_on: bool) -> bool:
    """`goes_on`, as argument and as result: the checkpoint goes on in the next frame."""
    if frame.type in (segment.DATA, segment.LOSS):
        batch = ingest_pb2.Batch.FromString(frame.payload)
        writer = state.writer(batch.writer_id, batch.route, batch.project, batch.run_id)
        state.append(place.number, writer, batch.first_seq + batch.count - 1, place.now_us)
    elif frame.type == segment.ACK:
        state.acknowledge(frames.decode_acks(frame.payload))
    elif frame.type == segment.CKPT:
        rows = frames.decode_checkpoints(frame.payload)
        state.load_checkpoint(rows, place.previous, goes_on=goes_on)
        return len(rows) == frames.PART_ROWS
    return False

"""A log that speaks of more writers than one frame holds: its checkpoints have several parts."""

from pathlib import Path

import pytest
from trackd_daemon.wal import files, frames, recovery
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

PART_ROWS = 4


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(segment, "MAX_PAYLOAD_BYTES", 300)


def _written(directory: Path, writers: int) -> dict[bytes, int]:
    """A log of three segments at least, of so many writers; what it holds."""
    log = LogWriter(directory, recovery.recover(directory, 1), segment_bytes=1000)
    log.start()
    top = 0
    while len(log.segments) < 4:
        top += 1
        for number in range(writers):
            log.write([_batch(bytes([65 + number]) * 16, top)], {})
    log.write([], {b"A" * 16: 1})
    log.sync()
    log.close()
    return {bytes([65 + number]) * 16: top for number in range(writers)}


def _batch(writer: bytes, seq: int) -> ingest_pb2.Batch:
    return ingest_pb2.Batch(
        writer_id=writer, first_seq=seq, count=1, data=b"x" * 20, route="embedded", project="p", run_id="r"
    )


def _received(found: recovery.Recovered) -> dict[bytes, int]:
    return {writer.writer_id: writer.received for writer in found.state.writers.values()}


def _parts(directory: Path, number: int) -> list[segment.Frame]:
    with files.SegmentReader(files.path_of(directory, number)) as reader:
        return [f for f in reader.frames() if isinstance(f, segment.Frame) and f.type == segment.CKPT]


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("writers", [1, 3, 4, 7, 8, 11])
def test_a_checkpoint_in_parts_is_read_back_whole(writers: int, tmp_path: Path) -> None:
    held = _written(tmp_path, writers)
    newest = files.numbers(tmp_path)[-1]
    assert len(_parts(tmp_path, newest)) == (1 if writers < PART_ROWS else writers // PART_ROWS + 1)
    found = recovery.recover(tmp_path, 1)
    assert _received(found) == held
    assert found.warnings == []


@pytest.mark.usefixtures("small_frames")
def test_a_segment_is_not_needed_because_a_checkpoint_has_parts(tmp_path: Path) -> None:
    """Of ten writers only the first segment holds something; what the eleventh wrote later is committed."""
    log = LogWriter(tmp_path, recovery.recover(tmp_path, 1), segment_bytes=1000)
    log.start()
    for number in range(11):
        log.write([_batch(bytes([65 + number]) * 16, 1)], {})
    top = 1
    while len(log.segments) < 5:
        top += 1
        log.write([_batch(b"A" * 16, top)], {})
    log.sync()
    log.close()
    state = recovery.recover(tmp_path, 1).state
    held = {number for number in log.segments if _holds_others(tmp_path, number)}
    assert held < set(log.segments)
    state.acknowledge([(b"A" * 16, top)])
    assert state.needed() == held


def _holds_others(directory: Path, number: int) -> bool:
    with files.SegmentReader(files.path_of(directory, number)) as reader:
        data = [f for f in reader.frames() if isinstance(f, segment.Frame) and f.type == segment.DATA]
    return any(ingest_pb2.Batch.FromString(frame.payload).writer_id != b"A" * 16 for frame in data)


@pytest.mark.usefixtures("small_frames")
def test_segments_of_which_parts_say_that_all_is_committed_are_not_needed(tmp_path: Path) -> None:
    held = _written(tmp_path, 11)
    log = LogWriter(tmp_path, recovery.recover(tmp_path, 1), segment_bytes=1000)
    log.start()
    first = log.segments[0]
    log.write([], dict(held))
    log.sync()
    log.end()
    log.close()
    found = recovery.recover(tmp_path, 1)
    assert {w.writer_id: w.acked for w in found.state.writers.values()} == held
    assert found.state.needed() == set()
    assert first not in log.segments


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_checkpoint_with_a_damaged_part_hides_nothing_of_what_came_before(part: int, tmp_path: Path) -> None:
    held = _written(tmp_path, 11)
    last = files.numbers(tmp_path)[-1]
    for found in _parts(tmp_path, last)[part : part + 1]:
        with files.path_of(tmp_path, last).open("r+b") as file:
            file.seek(found.offset + segment.FRAME_BYTES)
            file.write(b"\xff")
    assert _received(recovery.recover(tmp_path, 1)) == held


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("parts", [1, 2])
def test_a_checkpoint_that_a_power_loss_left_in_part_hides_nothing_of_what_came_before(
    parts: int, tmp_path: Path
) -> None:
    held = _written(tmp_path, 11)
    log = LogWriter(tmp_path, recovery.recover(tmp_path, 1))
    log.start()
    log.write([_batch(b"A" * 16, held[b"A" * 16] + 1)], {})
    log.sync()
    log.end()  # sealed, and the next one begun
    log.close()
    last = files.numbers(tmp_path)[-1]
    end = _parts(tmp_path, last)[parts - 1].end
    with files.path_of(tmp_path, last).open("r+b") as file:
        file.truncate(end)
    assert _received(recovery.recover(tmp_path, 1)) == held | {b"A" * 16: held[b"A" * 16] + 1}


def test_two_hundred_thousand_writers_fit_into_a_log(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, recovery.recover(tmp_path, 1))
    for number in range(200_000):
        writer = log._state.writer(number.to_bytes(16, "big"), "https://hub.example:8443", "p" * 20, "r" * 20)
        writer.received = number + 1
    log.start()
    log.close()
    assert len(_parts(tmp_path, 1)) > 1
    assert len(recovery.recover(tmp_path, 1).state.writers) == 200_000


def test_the_longest_names_fit_into_a_part() -> None:
    row = frames.Checkpoint(bytes(16), 1 << 63, 1 << 63, "x" * 256, "p" * 128, "r" * 128, 1 << 63)
    parts = frames.checkpoint_parts([row] * 70_000)
    assert len(parts) == 70_000 // frames.PART_ROWS + 1
    assert max(map(len, parts)) <= segment.MAX_PAYLOAD_BYTES

"""A sector that the disk cannot read, for a moment or for good, costs the frames in it and none behind it."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trackd_daemon.wal import files, recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

WRITER = b"w" * 16
BATCHES = 60
BLOCK = 4096


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """A log of one segment that ended without a seal."""
    log = LogWriter(tmp_path, recovery.recover(tmp_path, 1))
    log.start()
    for seq in range(1, BATCHES + 1):
        log.write([_batch(seq)], {})
    log.sync()
    log.close()
    return tmp_path


def _batch(seq: int) -> ingest_pb2.Batch:
    data = os.urandom(500)
    return ingest_pb2.Batch(
        writer_id=WRITER, first_seq=seq, count=1, data=data, route="embedded", project="p", run_id="r"
    )


@pytest.fixture
def bad_block(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes a block of every file unreadable: reads stop in front of it and fail in it."""
    real = os.pread

    def make(start: int) -> None:
        def pread(descriptor: int, size: int, offset: int) -> bytes:
            if start <= offset < start + BLOCK:
                raise OSError(errno.EIO, "injected")
            return real(descriptor, min(size, start - offset) if offset < start else size, offset)

        monkeypatch.setattr(os, "pread", pread)

    yield make
    monkeypatch.undo()


def _frames(wal: Path) -> list[segment.Frame | segment.Damage]:
    with files.SegmentReader(files.path_of(wal, 1)) as reader:
        return list(reader.frames())


def test_only_the_frames_that_touch_an_unreadable_block_are_lost(wal: Path, bad_block: Callable[[int], None]) -> None:
    whole = [found for found in _frames(wal) if isinstance(found, segment.Frame)]
    for start in range(BLOCK, whole[-2].offset, BLOCK):
        bad_block(start)
        found = _frames(wal)
        assert [f for f in found if isinstance(f, segment.Frame)] == [
            f for f in whole if f.offset >= start + BLOCK or f.offset + segment.FRAME_BYTES + len(f.payload) <= start
        ]
        assert sum(isinstance(f, segment.Damage) for f in found) == 1


def test_recovery_and_delivery_go_on_behind_an_unreadable_block(wal: Path, bad_block: Callable[[int], None]) -> None:
    bad_block(2 * BLOCK)
    found = recovery.recover(wal, 1)
    assert found.state.writers[WRITER].received == BATCHES
    (warning,) = found.warnings
    assert "damaged bytes" in warning
    log = LogWriter(wal, found)
    end = log.start()  # writes what it can read again
    bad_block(1 << 40)
    reader = RouteReader(wal, "embedded", lambda: log.segments)
    seqs = [batch.first_seq for batch in reader.read(end, 1 << 30)[0]]
    reader.close()
    log.close()
    assert seqs == sorted(seqs)
    assert seqs[0] == 1
    assert seqs[-1] == BATCHES
    assert BATCHES - 10 <= len(seqs) < BATCHES, "some were in the block"


def test_a_reader_that_does_not_forgive_says_that_the_disk_cannot_read(
    wal: Path, bad_block: Callable[[int], None]
) -> None:
    bad_block(2 * BLOCK)
    with files.SegmentReader(files.path_of(wal, 1)) as reader:
        assert len(reader.read(BLOCK, 2 * BLOCK)) == BLOCK
        assert reader.read(2 * BLOCK, 8) == b""
    with files.SegmentReader(files.path_of(wal, 1), forgives=False) as reader:
        assert len(reader.read(0, 2 * BLOCK)) == 2 * BLOCK
        assert reader.read(reader.size - 8, 100) == reader.read(reader.size - 8, 8), "the end of the file is no error"
        with pytest.raises(OSError, match="injected"):
            reader.read(BLOCK, 2 * BLOCK)
        with pytest.raises(OSError, match="injected"):
            list(reader.frames())

"""A log and a spool that format 1 once wrote: every later version reads them, byte for byte; of newer ones none is
touched. Frames alone: proto/test_segment.py."""

import shutil
import struct
import zlib
from pathlib import Path

import pytest
from trackd.courier.lanes import SpoolLane, UnreadableHeadError
from trackd_daemon.wal import recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.state import Position
from trackd_proto import batch, spool
from trackd_proto.compress import Decompressor
from trackd_proto.segment import UnsupportedVersion
from trackd_proto.version import SPOOL_FORMAT, WAL_FORMAT

GOLDEN = Path(__file__).parents[1] / "golden"
A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "log-v1", tmp_path / "log"))


@pytest.fixture
def head(tmp_path: Path) -> Path:
    (found,) = Path(shutil.copytree(GOLDEN / "spool-v1", tmp_path / "spool")).glob("*.head")
    return found


def everything(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def records(writer: bytes, first: int, count: int) -> bytes:
    """What the log was given when it was made."""
    return b"".join(b"%s-%d;" % (writer, seq) for seq in range(first, first + count))


def test_the_golden_log_is_recovered_and_read(log: Path) -> None:
    before = everything(log)
    found = recovery.recover(log, 1)
    assert found.warnings == []
    assert found.torn == {}
    known = {writer.writer_id: (writer.received, writer.acked) for writer in found.state.writers.values()}
    assert known == {A: (13, 7), B: (5, 0)}
    numbers = sorted(int(path.stem) for path in log.glob("*.wal"))
    reader = RouteReader(log, "embedded", lambda: numbers)
    batches, is_all = reader.read(Position(numbers[-1] + 1, 0), 1 << 20)
    reader.close()
    assert is_all
    assert [(b.writer_id, b.first_seq, b.count) for b in batches] == [(A, 1, 10), (B, 1, 5), (A, 11, 3)]
    for each in batches:
        data = Decompressor().decompress(each.data, each.raw_bytes) if each.codec else each.data
        assert data == records(each.writer_id, each.first_seq, each.count)
    assert everything(log) == before


def test_the_golden_spool_is_read(head: Path) -> None:
    lane = SpoolLane(head)
    item = lane.next_item()
    assert item is not None
    assert (item.first_seq, item.count, item.reason) == (1, 21, "")
    assert item.data == (GOLDEN / "spool-v1" / "batch").read_bytes()
    assert lane.next_item() is None
    assert (lane.target.run_id, lane.word(spool.PUBLISHED), lane.word(spool.ROLLS)) == ("golden", 21, 1)
    _, *rows = batch.decode_all(item.data, item.count)
    assert [row[3] for row in rows] == [{"i": i, "x": i / 7, "text": "é" * i, "n": 2**63 + i} for i in range(20)]
    lane.close()


def test_a_newer_log_is_refused_with_both_versions_named_and_not_touched(log: Path) -> None:
    path = max(log.glob("*.wal"))
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, 8, WAL_FORMAT + 1, WAL_FORMAT + 1)
    data[20:24] = bytes(4)
    data[20:24] = struct.pack("<I", zlib.crc32(bytes(data[:64])))
    path.write_bytes(bytes(data))
    before = everything(log)
    with pytest.raises(UnsupportedVersion, match=rf"format {WAL_FORMAT + 1}\b.* format {WAL_FORMAT}\b"):
        recovery.recover(log, 1)
    assert everything(log) == before


def test_a_newer_spool_is_refused_with_both_versions_named_and_not_touched(head: Path) -> None:
    data = bytearray(head.read_bytes())
    struct.pack_into("<Q", data, 8 * spool.FORMAT, SPOOL_FORMAT + 1)
    head.write_bytes(data)
    before = everything(head.parent)
    with pytest.raises(UnreadableHeadError, match=rf"format {SPOOL_FORMAT + 1}, .* up to {SPOOL_FORMAT}\b"):
        SpoolLane(head)
    assert everything(head.parent) == before

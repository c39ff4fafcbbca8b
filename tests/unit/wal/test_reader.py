"""The cursor of a route over a log that others share, on a disk that fails."""

import errno
import os
from pathlib import Path

import pytest
from trackd_daemon.wal import files, reader
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.state import Position
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

NUMBER = 1
WRITER = bytes(16)


def log_of(directory: Path, routes: list[str], record_bytes: int = 1000) -> Position:
    """A segment with one batch per route named; its end. Batch i holds seq i + 1 of its route's writer."""
    file = files.SegmentFile(files.RealDisk(), directory, NUMBER, base_lsn=1, wal_uuid=bytes(16), now_ns=1)
    counts: dict[str, int] = {}
    for lsn, route in enumerate(routes, start=2):
        counts[route] = counts.get(route, 0) + 1
        batch = ingest_pb2.Batch(
            writer_id=WRITER, first_seq=counts[route], count=1, route=route, data=os.urandom(record_bytes)
        )
        file.append(segment.encode_frame(segment.DATA, lsn, batch.SerializeToString(), file.salt), 1)
    file.sync()
    end = Position(NUMBER, file.size)
    file.close()
    return end


def test_records_of_others_are_passed_over_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read cannot be cancelled: one that passes over gigabytes would hold up whoever waits for it."""
    monkeypatch.setattr(reader, "_SCAN_BYTES", 10_000)
    end = log_of(tmp_path, [*["other"] * 100, "mine"])
    mine = RouteReader(tmp_path, "mine", lambda: (NUMBER,))
    found, reads, at_end = [], 0, False
    while not at_end:
        batches, at_end = mine.read(end, 1 << 20)
        found += batches
        reads += 1
    assert [batch.first_seq for batch in found] == [1]
    assert 8 <= reads <= 13


def test_what_cannot_be_read_once_is_not_lost_and_what_never_can_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = log_of(tmp_path, ["mine"] * 20)
    bad = end.offset // 2
    failures = 2

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal failures
        if failures > 0 and offset <= bad < offset + size:
            failures -= 1
            raise OSError(errno.EIO, "injected")
        return real(descriptor, size, offset)

    real = os.pread
    monkeypatch.setattr(os, "pread", pread)
    mine = RouteReader(tmp_path, "mine", lambda: (NUMBER,))

    def read() -> list[int]:
        mine.rewind()
        batches, at_end = mine.read(end, 1 << 20)
        assert at_end
        return [batch.first_seq for batch in batches]

    for _ in range(2):
        with pytest.raises(OSError, match="injected"):
            read()
    assert read() == list(range(1, 21)), "it was for a moment only"
    failures = 1 << 30
    with pytest.raises(OSError, match="injected"):
        read()
    there = read()
    assert 15 < len(there) < 20, "the rest of the segment is there, what stands on the bad place is not"
    missing = set(range(1, 21)) - set(there)
    assert missing == set(range(min(missing), max(missing) + 1))

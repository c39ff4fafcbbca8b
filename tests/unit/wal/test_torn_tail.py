"""A sync that fails may have written some of the pages: what is read afterwards has no hole."""

from __future__ import annotations

import errno
from pathlib import Path

from trackd_daemon.wal import files, recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import batch as framing
from trackd_proto.v1 import ingest_pb2


class TearingDisk(files.RealDisk):
    """When told to, a sync fails, and of what was written since the last one only the end is on the disk."""

    def __init__(self) -> None:
        self.tears = False
        self._first: dict[int, tuple[int, int]] = {}

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        written = super().pwrite(descriptor, data, offset)
        self._first.setdefault(descriptor, (offset, written))
        return written

    def sync(self, descriptor: int) -> None:
        offset, size = self._first.pop(descriptor, (0, 0))
        if self.tears:
            self.tears = False
            super().pwrite(descriptor, bytes(size), offset)
            raise OSError(errno.EIO, "injected")
        super().sync(descriptor)


def _batch(seq: int) -> ingest_pb2.Batch:
    data = framing.join([b"record %d" % seq])
    return ingest_pb2.Batch(
        writer_id=b"w" * 16, first_seq=seq, count=1, data=data, raw_bytes=len(data),
        route="embedded", project="p", run_id="r",
    )  # fmt: skip


def test_what_a_failed_sync_left_in_pieces_is_not_read(tmp_path: Path) -> None:
    directory = tmp_path / "wal"
    directory.mkdir(mode=0o700)
    disk = TearingDisk()
    log = LogWriter(directory, recovery.recover(directory, 1), disk=disk)
    log.start()
    log.write([_batch(1)], {})
    log.sync()
    for seq in (2, 3):  # of these two the first is gone when the sync has failed
        log.write([_batch(seq)], {})
    disk.tears = True
    log.sync()
    assert not disk.tears, "the fault has fired"
    progress = log.take_progress()
    assert progress.durable == {b"w" * 16: 3}
    assert progress.durable_end is not None
    source = RouteReader(directory, "embedded", lambda: log.segments)
    batches, is_over = source.read(progress.durable_end, 1 << 20)
    source.close()
    log.close()
    assert is_over
    assert [batch.first_seq for batch in batches] == [1, 2, 3], "in order: a hole would be declared lost"

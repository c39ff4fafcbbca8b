"""Offline lanes: sealed, compressed frames appended to `RUN_DIR/<writer>.wal`, one file per writer, no locks, no map.

A plain write per batch and an fdatasync every 200 ms or 4 MiB of records, so that a network file system is a fine
place for it.
`trackd flush` sends it later.
"""

import os
import sys
import time
from typing import Final

from trackd_proto import segment, spool
from trackd_proto.compress import Compressor
from trackd_proto.v1 import ingest_pb2

from trackd.courier.lanes import WINDOW_BYTES, SpoolLane, offline_path
from trackd.courier.tail import Item

_SYNC_S: Final = 0.2
_RETRY_S: Final = 1.0
_TURN_BYTES: Final = 4 * WINDOW_BYTES


class OfflineFile:
    """The file of one lane. What it holds is found by reading it, so a restart goes on where the last sync ended.

    A disk that is full or broken is tried again every second; meanwhile the records stay in the spool.
    """

    def __init__(self, lane: SpoolLane, compressor: Compressor) -> None:
        self._lane = lane
        self._compressor = compressor
        self._path = offline_path(lane.target, lane.writer_id)
        self._salt = segment.salt_of(lane.writer_id, 1)
        self._fd = -1
        self._end = 0
        self._lsn = 0
        self._written = 0
        self._durable = 0
        self._durable_end = 0
        self._dirty_since = 0.0
        self._held: Item | None = None
        self._retry_at = 0.0
        self.trouble = ""
        """Why nothing can be written at the moment, for people."""

    def pump(self) -> int:
        """Append what there is; sync when it is time. Bytes of records that were written. Never waits for space."""
        if time.monotonic() < self._retry_at:
            return 0
        try:
            if self._fd < 0:
                self._open()
            wrote = self._pump()
        except OSError as error:
            self._stumble(error)
            return 0
        self.trouble = ""
        return wrote

    def _pump(self) -> int:
        wrote = 0
        while wrote < _TURN_BYTES:  # other lanes want their turn too
            while item := self._held or self._lane.next_item():
                self._held = item
                self._append(item)
                self._held = None
                wrote += len(item.data)
            if self._lane.flight.has_room():
                break
            self._sync()  # nothing more is read before what was written is safe
        is_last = self._lane.is_over() and wrote == 0
        if is_last or time.monotonic() - self._dirty_since >= _SYNC_S:
            self._sync()
        self._lane.advance(self._written, self._durable, 0)
        return wrote

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _stumble(self, error: OSError) -> None:
        """The records stay in the spool; the bytes of a half frame are written over by the next try."""
        self._retry_at = time.monotonic() + _RETRY_S
        trouble = f"cannot write {self._path}: {error.strerror or error}"
        if trouble != self.trouble:
            self.trouble = trouble
            print(f"courier: {trouble}; trying again until it works", file=sys.stderr)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if self._durable_end:  # what stands behind it could not be synced, whatever the page cache says of it
                os.ftruncate(self._fd, self._durable_end if self._durable_end > segment.HEADER_BYTES else 0)
            self._recover()
            if self._lane.target.mode != "offline":  # the daemon that it was sent to before has what is durable
                self._written = max(self._written, self._lane.word(spool.DURABLE))
        except OSError:
            self.close()
            raise
        self._durable, self._durable_end = self._written, self._end
        self._lane.advance(self._written, self._durable, 0)
        self._lane.resume(self._written + 1)

    def _sync(self) -> None:
        if self._dirty_since:
            try:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
            except OSError:
                self._forget_unsynced()
                raise
            self._dirty_since = 0.0
        self._durable, self._durable_end = self._written, self._end
        self._lane.advance(self._written, self._durable, 0)

    def _forget_unsynced(self) -> None:
        """The kernel may have dropped what it could not write and will not say so again: it is all written anew."""
        self.close()
        self._held = None
        self._dirty_since = 0.0

    def _append(self, item: Item) -> None:
        target = self._lane.target
        message = ingest_pb2.Batch(
            writer_id=self._lane.writer_id, first_seq=item.first_seq, count=item.count, loss_reason=item.reason,
            route=target.route, project=target.project, run_id=target.run_id,
        )  # fmt: skip
        if item.data:
            message.codec = ingest_pb2.CODEC_ZSTD
            message.raw_bytes = len(item.data)
            message.data = self._compressor.compress(item.data)
        kind = segment.LOSS if item.reason else segment.DATA
        frame = segment.encode_frame(kind, self._lsn + 1, message.SerializeToString(), self._salt)
        self._write(frame)
        self._lsn += 1
        self._written = item.next_seq - 1
        self._lane.flight.add(item)
        self._dirty_since = self._dirty_since or time.monotonic()

    def _write(self, frame: bytes) -> None:
        view, offset = memoryview(frame), self._end
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done
        self._end = offset

    def _recover(self) -> None:
        self._lsn = self._written = 0
        size = os.fstat(self._fd).st_size
        if size < segment.HEADER_BYTES:
            header = segment.encode_header(self._lane.writer_id, 1, 1, time.time_ns())
            os.pwrite(self._fd, header, 0)
            self._end = len(header)
            return
        self._end = segment.HEADER_BYTES
        for found in segment.scan_with(lambda offset, length: os.pread(self._fd, length, offset), size):
            if isinstance(found, segment.Damage):
                continue
            self._end, self._lsn = found.end, found.lsn
            message = ingest_pb2.Batch.FromString(found.payload)
            self._written = max(self._written, message.first_seq + message.count - 1)
        os.ftruncate(self._fd, self._end)

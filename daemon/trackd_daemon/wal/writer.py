"""The write-ahead log's work, step by step: compress, append, sync, roll and remove segments. No thread of its own.

`Wal` (log.py) decides when; here is only what one step does, so that a test can put anything between two of them.
"""

import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trackd_proto import segment
from trackd_proto.compress import Compressor
from trackd_proto.limits import MIB
from trackd_proto.local import places
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import doubt, files, frames
from trackd_daemon.wal.quota import Quota
from trackd_daemon.wal.recovery import Recovered
from trackd_daemon.wal.state import Position

SEGMENT_BYTES: Final = 64 * MIB
_UNSYNCED_BYTES: Final = 8 * MIB
_FAST_SYNC_S: Final = 0.02
_SLOW_SYNC_DELAY_S: Final = 0.2
_CHECK_DISK_S: Final = 5.0
_SMALL_BYTES: Final = 128
_RESERVE_BYTES: Final = 1 * MIB
_COPY_BYTES: Final = 4 * MIB
_CUT_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PLENTY: Final = 1 << 62
"""Where the disk does not say how much it has."""

_logger = logging.getLogger("trackd")


@dataclass(slots=True)
class Progress:
    """What happened in the log since the last one."""

    received: dict[bytes, int] = field(default_factory=dict)
    """Highest seq appended, by writer."""
    durable: dict[bytes, int] = field(default_factory=dict)
    """Highest seq synced, by writer."""
    acked: dict[bytes, int] = field(default_factory=dict)
    """Acks that a synced frame holds now."""
    taken_bytes: int = 0
    """Of the batches handed in: no longer waiting in memory."""
    durable_end: Position | None = None
    """What lies before it may be read and sent."""
    full_reason: str = ""
    """Why nothing can be appended at the moment."""
    stuck: tuple[ingest_pb2.Batch, ...] = ()
    """Appended, perhaps lost by a failed sync, and not written again so far: the disk takes nothing."""


@dataclass(slots=True)
class _Unsynced:
    """A frame that the disk may still lose."""

    frame_type: int
    payload: bytes
    writer_id: bytes = b""
    first_seq: int = 0
    last_seq: int = 0
    acks: Mapping[bytes, int] = field(default_factory=dict)


class LogWriter:
    """The segment being written and what the disk may still lose of it. One thread at a time."""

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        *,
        quota: Quota | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        disk: files.Disk | None = None,
    ) -> None:
        self.directory = directory
        self._state = recovered.state
        self._next_segment = recovered.next_segment
        self._next_lsn = recovered.next_lsn
        self._torn_ends = recovered.torn
        self._quota = quota or Quota()
        self._segment_bytes = segment_bytes
        self._disk: files.Disk = disk or files.RealDisk()
        self._uuid = os.urandom(16)
        self._compress = Compressor().compress
        self._file: files.SegmentFile | None = None
        self._unsynced: list[_Unsynced] = []
        self._unsynced_bytes = 0
        self._dirty_since: float | None = None
        self._last_sync_s = 0.0
        self._checked_disk_s = 0.0
        self._disk_bytes = _PLENTY
        """Of the whole file system, as last said."""
        self._progress = Progress()
        self._torn: list[files.SegmentFile] = []
        """Segments whose last frames a failed sync may have lost or torn."""
        self._doubtful: list[int] = []
        """Recovered segments that may hold frames the disk does not: nothing goes before they are copied."""
        self.full_reason = ""
        """Why nothing can be appended at the moment."""
        self._logged: set[str] = set()
        """Reasons that are faults of this program: told once."""
        self._stuck: tuple[ingest_pb2.Batch, ...] = ()
        self.segments: tuple[int, ...] = tuple(self._state.segments)
        """Numbers of the existing segments, ascending; replaced as a whole, so any thread may read it."""
        self.size_bytes = self._state.bytes
        """Of all segments."""

    def start(self) -> Position:
        """Open a new segment behind what was recovered, all of it durable now; the end of the log. Raises OSError."""
        places.private_directory(self.directory)
        self._cut_torn_ends()
        self._doubtful = doubt.unsealed(self.directory, self._state.segments)
        self._make_reserve()
        copies = doubt.find(self.directory, self._doubtful, self._state)
        # The checkpoint speaks of what came before the doubtful segments; their records follow it.
        for copy in reversed(copies):
            self._state.roll_back(copy.writer_id, copy.first_seq - 1)
        self._roll()
        try:
            self._copy_recovered(copies)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self._sync_recovered()  # no room for a copy: the next best thing
        copied, self._doubtful = self._doubtful, []
        self._collect()
        if copied:
            # Their names must not come back after a power loss: with holes, and before the segment that has it all.
            self._disk.sync_directory(self.directory)
        return Position(self._file_now.number, self._file_now.size)

    def _cut_torn_ends(self) -> None:
        """What follows a gap in frames that were never synced would be read with a hole before it."""
        for number, size in self._torn_ends.items():
            descriptor = self._disk.open(files.path_of(self.directory, number), _CUT_FLAGS)
            try:
                self._disk.truncate(descriptor, size)
            finally:
                self._disk.close(descriptor)

    def _copy_recovered(self, found: Sequence[doubt.Copy]) -> None:
        """Write what is not committed of the unsealed segments again, and sync it (doubt.py says why)."""
        copies: list[_Unsynced] = []
        size = 0
        for copy, payload in doubt.read(self.directory, found):
            copies.append(_Unsynced(copy.frame_type, payload, copy.writer_id, copy.first_seq, copy.last_seq))
            size += len(payload)
            if size >= _COPY_BYTES:
                self._append_copies(copies)
                copies, size = [], 0
        self._append_copies(copies)
        self._state.forget_segments(self._doubtful)

    def _append_copies(self, copies: list[_Unsynced]) -> None:
        if not copies:
            return
        self._append(copies)
        for copy in copies:
            writer = self._state.writers[copy.writer_id]
            self._state.append(self._file_now.number, writer, copy.last_seq, writer.active_us)
        self.sync()

    def _sync_recovered(self) -> None:
        for number in self._doubtful:
            descriptor = self._disk.open(files.path_of(self.directory, number), files.READ_FLAGS)
            try:
                self._disk.sync(descriptor)
            finally:
                self._disk.close(descriptor)

    @property
    def _file_now(self) -> files.SegmentFile:
        assert self._file is not None
        return self._file

    @property
    def is_dirty(self) -> bool:
        """Whether something appended is not synced."""
        return self._dirty_since is not None

    @property
    def quota_bytes(self) -> int:
        """Most that the log may take. Any thread may ask."""
        self._look()
        return self._quota.limit(self._disk_bytes)

    def take_progress(self) -> Progress:
        """What happened since the last call."""
        progress, self._progress = self._progress, Progress()
        progress.full_reason, progress.stuck = self.full_reason, self._stuck
        return progress

    def end(self) -> None:
        """Seal the log at its end, where everything is synced, and let a checkpoint say how far each writer came.

        Without it, damage to a writer's last frames would be known as bytes only, not as seqs. Raises OSError.
        """
        if self._file is not None and not self.is_dirty and self._file.frames > 1:
            self._roll()

    def close(self) -> None:
        """Release the descriptor; what is not synced may be lost."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def sync_delay_s(self) -> float:
        """Seconds until the next sync: none if the disk is fast, else up to 200 ms after the first dirty byte."""
        if self._last_sync_s < _FAST_SYNC_S or self._unsynced_bytes >= _UNSYNCED_BYTES:
            return 0.0
        assert self._dirty_since is not None
        # Twice the last sync: a disk that needs 30 ms is not made to wait 200.
        return self._dirty_since + min(2 * self._last_sync_s, _SLOW_SYNC_DELAY_S) - time.monotonic()

    def is_full(self) -> bool:
        """Whether quota or disk leave no room for data now; looks at most every five seconds while they do."""
        now = time.monotonic()
        free, inodes = _PLENTY, _PLENTY
        if self.full_reason or now - self._checked_disk_s >= _CHECK_DISK_S:
            self._checked_disk_s = now
            free, inodes = self._look()
        elif not self._quota.quota_bytes:
            return False
        self.full_reason = self._quota.reason_full(self._state.bytes, free, self._disk_bytes, inodes)
        return bool(self.full_reason)

    def _look(self) -> tuple[int, int]:
        """Bytes and inodes that are free. A disk that does not say so has room: writing will tell."""
        try:
            status = os.statvfs(self.directory)
        except OSError:
            return _PLENTY, _PLENTY
        self._disk_bytes = status.f_blocks * status.f_frsize
        return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else _PLENTY

    def write(self, batches: Sequence[ingest_pb2.Batch], acks: Mapping[bytes, int]) -> None:
        """Append control and data frames in one write, all or none. Raises OSError."""
        new: list[_Unsynced] = []
        if acks:
            new.append(_Unsynced(segment.ACK, frames.encode_acks(acks), acks=acks))
        new.extend(self._encode(batch) for batch in batches)
        if not new:
            return
        if self._file is None or self._file.broken:
            self._start_anew()
        elif self._file.size >= self._segment_bytes:
            self.sync()
            self._roll()
        self._append(new)
        now_us = time.time_ns() // 1000
        assert self._file is not None
        for frame, batch in zip(new[bool(acks) :], batches, strict=True):
            writer = self._state.writer(batch.writer_id, batch.route, batch.project, batch.run_id)
            self._state.append(self._file.number, writer, frame.last_seq, now_us)
            self._progress.received[frame.writer_id] = writer.received
            self._progress.taken_bytes += len(batch.data)
        self.full_reason = ""
        if not batches:
            self._checked_disk_s = 0.0  # acks go into a full log too: data must look first

    def _encode(self, batch: ingest_pb2.Batch) -> _Unsynced:
        """The frame of a batch; compressed here, once for its whole way to the hub."""
        packed = batch
        if batch.codec == ingest_pb2.CODEC_NONE and len(batch.data) >= _SMALL_BYTES:
            packed = ingest_pb2.Batch()
            packed.MergeFrom(_without_data(batch))
            packed.codec = ingest_pb2.CODEC_ZSTD
            packed.raw_bytes = len(batch.data)
            packed.data = self._compress(batch.data)
        frame_type = segment.LOSS if batch.loss_reason else segment.DATA
        last_seq = batch.first_seq + batch.count - 1
        return _Unsynced(frame_type, packed.SerializeToString(), batch.writer_id, batch.first_seq, last_seq)

    def _append(self, new: list[_Unsynced]) -> None:
        assert self._file is not None
        lsn, salt = self._next_lsn, self._file.salt
        data = b"".join([segment.encode_frame(f.frame_type, lsn + i, f.payload, salt) for i, f in enumerate(new)])
        try:
            self._file.append(data, len(new))
        except OSError as error:
            if error.errno not in _NO_SPACE and not self._file.broken:
                self._file.broken = True  # go on in a new file: this one may sit on bad sectors
            raise
        self._next_lsn += len(new)
        self._unsynced += new
        self._unsynced_bytes += len(data)
        self._dirty_since = self._dirty_since or time.monotonic()
        self._account()

    def sync(self) -> None:
        """Make everything appended durable. On an error the frames are written again into a new segment."""
        assert self._file is not None
        started = time.monotonic()
        if self._file.broken:
            self._start_anew()
        else:
            try:
                self._file.sync()
            except OSError:
                self._start_anew()
        self._last_sync_s = time.monotonic() - started
        self._settle()

    def _settle(self) -> None:
        """Everything unsynced has become durable."""
        assert self._file is not None
        for frame in self._unsynced:
            if frame.writer_id:
                self._progress.durable[frame.writer_id] = frame.last_seq
            for writer_id, seq in frame.acks.items():
                self._progress.acked[writer_id] = seq
        had_acks = any(frame.acks for frame in self._unsynced)
        self._unsynced.clear()
        self._unsynced_bytes = 0
        self._stuck = ()
        self._dirty_since = None
        self._progress.durable_end = Position(self._file.number, self._file.size)
        if self._file.mark(self._next_lsn):
            self._next_lsn += 1
        self._account()
        if had_acks:
            self._state.acknowledge(self._progress.acked.items())
            self._collect()

    def _roll(self) -> None:
        """Seal the current segment (which is synced) and begin the next one with a checkpoint."""
        if self._file is not None and not self._file.broken:
            seal = segment.encode_seal(self._next_lsn, self._file.frames, self._file.salt)
            self._file.append(seal, 1)
            self._next_lsn += 1
            self._account()
            self._file.sync()
        self._open_next()

    def _open_next(self) -> None:
        now_ns, lsn = time.time_ns(), self._next_lsn
        # A number is used once: the file of an attempt that failed may be impossible to remove.
        number, self._next_segment = self._next_segment, self._next_segment + 1
        file = files.SegmentFile(self._disk, self.directory, number, base_lsn=lsn, wal_uuid=self._uuid, now_ns=now_ns)
        try:
            parts = frames.checkpoint_parts(self._state.checkpoint(now_ns // 1000))
            data = [segment.encode_frame(segment.CKPT, lsn + i, part, file.salt) for i, part in enumerate(parts)]
            file.append(b"".join(data), len(data))
            file.sync()
            self._disk.sync_directory(self.directory)
        except Exception:
            file.discard()
            raise
        self._next_lsn += len(data)
        self.close()
        self._file = file
        self._account()
        self._collect()

    def _start_anew(self) -> None:
        """Go on in a new segment after an error, rewriting what the old one may have lost."""
        lost = list(self._unsynced)
        if self._file is not None and lost and self._file not in self._torn:  # not again at each attempt
            self._torn.append(self._file)
        for frame in lost:
            if frame.writer_id:
                self._state.roll_back(frame.writer_id, frame.first_seq - 1)
        self._open_next()
        assert self._file is not None
        if not lost:
            return
        self._unsynced.clear()
        self._unsynced_bytes = 0
        try:
            self._append(lost)
        except OSError:
            self._unsynced = lost
            self._file.broken = True
            raise
        for frame in lost:
            if frame.writer_id:
                writer = self._state.writers[frame.writer_id]
                self._state.append(self._file.number, writer, frame.last_seq, writer.active_us)
        self._file.sync()
        self._cut_torn()

    def _cut_torn(self) -> None:
        """Of what a failed sync left, pieces may be on the disk. All of it stands in the new segment now; read from the
        old one, which comes first, the pieces would be records with holes between them."""
        for file in self._torn:
            with suppress(OSError):
                descriptor = self._disk.open(file.path, _CUT_FLAGS)
                try:
                    self._disk.truncate(descriptor, file.synced_size)
                    self._disk.sync(descriptor)
                finally:
                    self._disk.close(descriptor)
                self._state.segments[file.number] = file.synced_size
        self._torn.clear()

    def _collect(self) -> None:
        """Remove the segments whose records are all committed, as synced frames in later segments say."""
        assert self._file is not None
        for number in self._state.collectable(self._file.number) if not self._doubtful else ():
            try:
                self._disk.unlink(files.path_of(self.directory, number))
            except OSError:
                continue  # tried again at the next collection
            del self._state.segments[number]
        self._account()

    def _account(self) -> None:
        if self._file is not None:
            self._state.segments[self._file.number] = self._file.size
        self.segments = tuple(self._state.segments)
        self.size_bytes = self._state.bytes

    def back_off(self, error: Exception) -> None:
        """Nothing could be written: remember why, free the reserve for control frames, and try again later."""
        if isinstance(error, OSError):
            self.full_reason = f"cannot write to {self.directory}: {error.strerror or error}"
        else:
            self.full_reason = f"cannot write to {self.directory}: {type(error).__name__}: {error}"
            if self.full_reason not in self._logged:
                self._logged.add(self.full_reason)
                _logger.error("%s", self.full_reason, exc_info=error)
        self._stuck = tuple(ingest_pb2.Batch.FromString(frame.payload) for frame in self._unsynced if frame.writer_id)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            with suppress(OSError):
                self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        return self.directory / "reserve"

    def _make_reserve(self) -> None:
        """Space that acks can take on a full disk, so that space can be freed again."""
        try:
            descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except (OSError, AttributeError):
            self._reserve.unlink(missing_ok=True)


def _without_data(batch: ingest_pb2.Batch) -> ingest_pb2.Batch:
    return ingest_pb2.Batch(
        writer_id=batch.writer_id,
        first_seq=batch.first_seq,
        count=batch.count,
        loss_reason=batch.loss_reason,
        route=batch.route,
        project=batch.project,
        run_id=batch.run_id,
    )

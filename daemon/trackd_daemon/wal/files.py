"""Segment files: append without ever leaving a half frame behind, read, recover. The only module that touches them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from trackd_proto import segment

_SUFFIX = ".wal"
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Disk(Protocol):
    """The system calls of the log; tests put faults between."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; new files can be read by this user alone."""

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Bytes written, perhaps fewer than asked."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""

    def sync(self, descriptor: int) -> None:
        """Returns when the file's data is on the disk."""

    def sync_directory(self, path: Path) -> None:
        """Returns when the directory's names are on the disk."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""


class RealDisk:
    """The operating system's."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; new files can be read by this user alone."""
        return os.open(path, flags, 0o600)

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Bytes written, perhaps fewer than asked."""
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Returns when the file's data is on the disk."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Returns when the directory's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink(missing_ok=True)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)


class SegmentFile:
    """The segment that is written. Its size is always that of whole frames, or it is `broken` and nothing is added."""

    def __init__(
        self, disk: Disk, directory: Path, number: int, *, base_lsn: int, wal_uuid: bytes, now_ns: int
    ) -> None:
        self.number = number
        self.path = path_of(directory, number)
        self.salt = segment.salt_of(wal_uuid, number)
        self.size = 0
        self.synced_size = 0
        """What has been on the disk for certain, and the mark that says so."""
        self.frames = 0
        self.broken = False
        self._disk = disk
        self._descriptor = disk.open(self.path, _FLAGS)
        try:
            self._write(segment.encode_header(wal_uuid, number, base_lsn, now_ns, segment.MARKED))
        except OSError:
            self.discard()
            raise

    def append(self, frames: bytes, count: int) -> int:
        """Write `count` encoded frames, all or none; the offset of the first. Raises OSError."""
        offset = self.size
        self._write(frames)
        self.frames += count
        return offset

    def sync(self) -> None:
        """Returns when everything appended is on the disk. After an error this file must not be used again."""
        try:
            self._disk.sync(self._descriptor)
        except OSError:
            # The kernel may have dropped the dirty pages and would report success the next time.
            self.broken = True
            raise
        self.synced_size = self.size

    def mark(self, lsn: int) -> bool:
        """Say that everything before was synced. False if it cannot be written; nothing that is sound depends on it."""
        try:
            self.append(segment.encode_frame(segment.MARK, lsn, b"", self.salt), 1)
        except OSError:
            return False
        self.synced_size = self.size
        return True

    def close(self) -> None:
        """Release the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1  # gone even if close fails
        if descriptor >= 0:
            self._disk.close(descriptor)

    def discard(self) -> None:
        """Close and remove a file that came to nothing, as far as the disk lets it: the error before is what counts."""
        with suppress(OSError):
            self.close()
        with suppress(OSError):
            self._disk.unlink(self.path)

    def _write(self, data: bytes) -> None:
        view, written = memoryview(data), 0
        try:
            while written < len(view):
                written += self._disk.pwrite(self._descriptor, view[written:], self.size + written)
        except OSError:
            try:
                self._disk.truncate(self._descriptor, self.size)
            except OSError:
                self.broken = True
            raise
        self.size += len(view)


class SegmentReader:
    """Reads frames of one segment with its own descriptor (no mmap: a bad sector would be a SIGBUS)."""

    def __init__(self, path: Path, *, forgives: bool = True) -> None:
        """`forgives`: what the disk cannot read is taken for damage; otherwise reading raises OSError."""
        self._forgives = forgives
        self._descriptor = os.open(path, READ_FLAGS)

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """These bytes; fewer at the end of the file or where the disk cannot read (unless that is not forgiven)."""
        data = b""
        try:
            # Before a page that it cannot read the kernel stops short; only the next read says why.
            while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
                data += more
        except OSError:
            if not self._forgives:
                raise
        return data

    def header(self) -> segment.Header:
        """Raises UnsupportedVersion, HeaderDamaged."""
        return segment.decode_header(self.read(0, segment.HEADER_BYTES))

    def is_misplaced(self, number: int) -> bool:
        """Whether the file is another segment than its name says. A damaged header says nothing."""
        try:
            return self.header().segment_no != number
        except segment.HeaderDamaged:
            return False

    def is_sealed(self) -> bool:
        """Whether it is complete: it was synced before the next segment began."""
        start = segment.seal_offset(self.size)
        found = next(self.frames(start), None) if start >= segment.HEADER_BYTES else None
        return isinstance(found, segment.Frame) and found.type == segment.SEAL

    def torn_from(self) -> int:
        """Where the damaged end begins that was never synced (`segment` describes it); the file's size if there is
        none. Reads the whole file."""
        try:
            has_marks = bool(self.header().flags & segment.MARKED)
        except segment.HeaderDamaged:  # the first mark will tell
            has_marks = False
        torn = self.size
        for found in self.frames():
            if isinstance(found, segment.Damage):
                torn = min(torn, found.offset)
            elif found.type in (segment.MARK, segment.CKPT, segment.SEAL):  # what is before them was synced
                torn = self.size
                has_marks = has_marks or found.type == segment.MARK
        return torn if has_marks else self.size

    def frames(self, start: int = 0, size: int | None = None) -> Iterator[segment.Frame | segment.Damage]:
        """Frames and damage from `start` up to `size` (default: the end of the file)."""
        salt = None
        if start:
            with suppress(segment.HeaderDamaged):
                salt = self.header().salt
        return segment.scan_with(self.read, self.size if size is None else size, start=start, salt=salt)

    def close(self) -> None:
        """Release the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "SegmentReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def path_of(directory: Path, number: int) -> Path:
    """The file of a segment."""
    return directory / f"{number:012d}{_SUFFIX}"


def numbers(directory: Path) -> list[int]:
    """The segments in a directory, ascending."""
    return sorted(int(p.stem) for p in directory.glob(f"*{_SUFFIX}") if p.stem.isdecimal())


def check_versions(directory: Path) -> None:
    """Raises UnsupportedVersion if any segment needs a newer trackd. Changes nothing."""
    for number in numbers(directory):
        with SegmentReader(path_of(directory, number)) as reader:
            try:
                reader.header()
            except segment.HeaderDamaged:
                continue

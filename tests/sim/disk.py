"""A disk that loses power or runs full: files are real, and what was never synced may be gone, torn, or back again."""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trackd_daemon.wal import files

SECTOR = 512


@dataclass
class _File:
    """What of a file is safe, and what is not yet."""

    safe: bytes | None = None
    """Content that a power loss leaves; None: not even the name."""
    dirty: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes since the last sync, in order; (size, None) is a truncation."""
    is_named: bool = False
    """Its name was synced with the directory."""
    is_unlinked: bool = False
    size: int = 0


class SimDisk(files.RealDisk):
    """The log's system calls on real files, with faults; `power_loss` makes of them what a disk might keep."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sync_fails = 0.0
        self.write_fails = 0.0
        self.capacity: int | None = None
        """Bytes that all files together may have; None: no limit."""
        self.reserve: Path | None = None
        """A file that takes space too, though it is not written through here."""
        self.fired: dict[str, int] = {}
        self.on_unlink: Callable[[Path], None] = lambda _path: None
        self._files: dict[Path, _File] = {}
        self._paths: dict[int, Path] = {}

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; none for a new file where not a byte is free."""
        if flags & os.O_CREAT and self.room() <= 0:
            self._count("no space for a file")
            raise OSError(errno.ENOSPC, "injected")
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        if flags & os.O_CREAT:
            self._files[path] = _File()
        return descriptor

    def room(self) -> int:
        """Bytes that are free."""
        if self.capacity is None:
            return 1 << 62
        held = sum(file.size for file in self._files.values() if not file.is_unlinked)
        if self.reserve is not None and self.reserve.exists():
            held += self.reserve.stat().st_size
        return self.capacity - held

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """May write a part and fail at the next try."""
        file = self._of(descriptor)
        if self.rng.random() < self.write_fails:
            self._count("write error")
            self._write_part(descriptor, data[: self.rng.randrange(len(data))], offset)
            raise OSError(errno.EIO, "injected")
        if self.capacity is not None and (room := self.room() + max(0, file.size - offset)) < len(data):
            self._count("no space for data")
            self._write_part(descriptor, data[: max(0, room)], offset)
            raise OSError(errno.ENOSPC, "injected")
        written = super().pwrite(descriptor, data, offset)
        file.dirty.append((offset, bytes(data[:written])))
        file.size = max(file.size, offset + written)
        return written

    def _write_part(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        if data:
            super().pwrite(descriptor, data, offset)
            file = self._of(descriptor)
            file.dirty.append((offset, bytes(data)))
            file.size = max(file.size, offset + len(data))

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""
        super().truncate(descriptor, size)
        file = self._of(descriptor)
        file.dirty.append((size, None))
        file.size = size

    def sync(self, descriptor: int) -> None:
        """A failed sync drops what was dirty, and the next one will not say so: the pages are clean."""
        file = self._of(descriptor)
        if self.rng.random() < self.sync_fails:
            self._count("sync error")
            file.dirty.clear()
            raise OSError(errno.EIO, "injected")
        file.safe = _applied(file.safe or b"", file.dirty)
        file.dirty.clear()

    def sync_directory(self, path: Path) -> None:
        """Names are safe."""
        for name, file in list(self._files.items()):
            if file.is_unlinked:
                del self._files[name]
            else:
                file.is_named = True

    def unlink(self, path: Path) -> None:
        """The name may come back after a power loss."""
        if path.exists():
            self.on_unlink(path)
        super().unlink(path)
        if path in self._files:
            self._files[path].is_unlinked = True

    def close(self, descriptor: int) -> None:
        """Close it."""
        self._paths.pop(descriptor, None)
        super().close(descriptor)

    def safe_contents(self) -> list[tuple[Path, bytes]]:
        """What a power loss would leave of each file at least."""
        return [(path, file.safe or b"") for path, file in self._files.items() if not file.is_unlinked]

    def power_loss(self) -> None:
        """Leave of every file what a disk might have kept of it."""
        self._count("power loss")
        for path, file in self._files.items():
            if not file.is_named and self.rng.random() < 0.5:
                path.unlink(missing_ok=True)
                continue
            if file.is_unlinked and (file.safe is None or self.rng.random() < 0.5):
                continue
            path.write_bytes(_applied(file.safe or b"", self._kept(file.dirty)))
        self.crash()
        self._forget()

    def _forget(self) -> None:
        """After a restart: everything that is there counts as safe."""
        contents = {path: path.read_bytes() for path in self._files if path.exists()}
        self._files = {path: _File(data, is_named=True, size=len(data)) for path, data in contents.items()}

    def crash(self) -> None:
        """The process is gone; what it wrote is in the page cache. Descriptors are closed."""
        for descriptor in list(self._paths):
            self.close(descriptor)

    def _kept(self, dirty: list[tuple[int, bytes | None]]) -> list[tuple[int, bytes | None]]:
        """A random subset of the sectors written."""
        kept: list[tuple[int, bytes | None]] = []
        for offset, data in dirty:
            if data is None:
                if self.rng.random() < 0.5:
                    kept.append((offset, None))
                continue
            at = 0
            while at < len(data):
                size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
                if self.rng.random() < 0.5:
                    kept.append((offset + at, data[at : at + size]))
                at += size
        return kept

    def _of(self, descriptor: int) -> _File:
        return self._files[self._paths[descriptor]]

    def _count(self, what: str) -> None:
        self.fired[what] = self.fired.get(what, 0) + 1


def _applied(content: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    data = bytearray(content)
    for offset, piece in writes:
        if piece is None:
            del data[offset:]
            continue
        if len(data) < offset:
            data.extend(bytes(offset - len(data)))
        data[offset : offset + len(piece)] = piece
    return bytes(data)

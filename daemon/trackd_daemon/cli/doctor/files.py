"""Looks at the files of a home. Reads; the one file it makes has no name and is gone with its descriptor."""

import mmap
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import msgspec
from trackd_proto import segment, spool
from trackd_proto.layout import Instance
from trackd_proto.limits import MIB
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.version import SPOOL_FORMAT

from trackd_daemon.doctor import facts

_MADV_WIPEONFORK: Final = 18
_MANY: Final = 10_000


def see_places(where: Instance) -> facts.Places:
    """Every directory and private file."""
    seen = [_place(where.home, "home")]
    if seen[0].kind == "directory" and not seen[0].error:
        for path in (where.directory, where.wal, where.spool, where.store):
            seen.append(_place(path, "directory"))
        for path in (where.daemon_lock, where.spawn_lock, where.epoch, where.published):
            seen.append(_place(path, "file"))
    return facts.Places(os.geteuid(), tuple(seen), _open_above(where.home))


def _open_above(home: Path) -> str:
    """A directory above it in which everybody can rename what is not theirs: without the sticky bit; "" if none."""
    for path in home.resolve().parents:
        with suppress(OSError):
            mode = path.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return str(path)
    return ""


def _place(path: Path, role: Literal["home", "directory", "file"]) -> facts.Place:
    try:
        status = path.stat() if role == "home" else path.lstat()
    except FileNotFoundError:
        return facts.Place(str(path), role, "missing", is_writable=os.access(_existing(path), os.W_OK | os.X_OK))
    except OSError as error:
        return facts.Place(str(path), role, "missing", error=error.strerror or str(error))
    rights = os.W_OK | os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
    return facts.Place(
        str(path), role, _kind(status.st_mode), status.st_uid, stat.S_IMODE(status.st_mode), os.access(path, rights)
    )


def _kind(mode: int) -> Literal["directory", "file", "link", "other"]:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) else "other"


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))


def see_disk(where: Instance) -> facts.Disk:
    """The file system that spools and log are on, or will be. Raises OSError."""
    path = _existing(where.spool)
    status = os.statvfs(path)
    size = status.f_frsize
    total, free = status.f_blocks * size, status.f_bavail * size
    return facts.Disk(str(path), _file_system(path), total, free, status.f_files, status.f_favail)


def _file_system(path: Path) -> str:
    """Its type, "" where the system does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return kind_of(os.path.realpath(path), lines)


def kind_of(path: str, mountinfo: list[str]) -> str:
    """The type of the file system that an absolute path without links is on, by lines of mountinfo (proc(5))."""
    best, kind = "", ""
    for line in mountinfo:
        left, _, right = line.partition(" - ")
        fields = left.split()
        point = fields[4].encode().decode("unicode_escape") if len(fields) > 4 else ""
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later covers the earlier.
        if point and is_above and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def see_budget(where: Instance, settings: Settings) -> facts.Budget:
    """Quotas as set, and the size of the log."""
    size = 0
    for path in where.wal.glob("*.wal"):
        with suppress(OSError):
            size += path.stat().st_size
    return facts.Budget(settings.wal_quota_bytes, settings.min_free_bytes, settings.spool_quota_bytes, size)


def see_memory(where: Instance) -> facts.Memory:
    """Whether forks are seen, and whether files on the spool's disk can be allocated and mapped."""
    path = _existing(where.spool)
    allocates, error = _allocates(path)
    return facts.Memory(_wipes_on_fork(), allocates, str(path), error)


def _wipes_on_fork() -> bool:
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        try:
            page.madvise(_MADV_WIPEONFORK)
        except (OSError, ValueError, AttributeError):
            return False
    return True


def _allocates(directory: Path) -> tuple[bool | None, str]:
    """With a file that has no name: nothing shows, and nothing is left even if we are killed here."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError) as error:
        return None, str(error)
    try:
        # Not mapped unless all of it is allocated: touching a hole on a full disk is a SIGBUS.
        os.posix_fallocate(descriptor, 0, MIB)
        with mmap.mmap(descriptor, MIB) as view:
            view[-1] = 1
    except OSError as error:
        return False, error.strerror or str(error)
    finally:
        os.close(descriptor)
    return True, ""


def see_clock(where: Instance) -> facts.Clock:
    """The times that segments, spools and small files carry."""
    stamps = tuple(islice(_stamps(where), _MANY + 1))
    return facts.Clock(time.time_ns() // 1000, stamps[:_MANY], is_cut_off=len(stamps) > _MANY)


def _stamps(where: Instance) -> Iterator[facts.Stamp]:
    for path in where.wal.glob("*.wal"):
        with suppress(OSError, segment.HeaderDamaged, segment.UnsupportedVersion):
            yield facts.Stamp(str(path), segment.decode_header(_start(path, segment.HEADER_BYTES)).created_ns // 1000)
    for path in where.spool.glob("*/session.json"):
        with suppress(OSError, msgspec.DecodeError):
            yield facts.Stamp(str(path), msgspec.json.decode(path.read_bytes(), type=spool.SessionInfo).created_us)
    for pattern in ("*", "wal/*.wal", "spool/*/*"):
        for path in where.directory.glob(pattern):
            with suppress(OSError):
                yield facts.Stamp(str(path), path.lstat().st_mtime_ns // 1000)


def see_formats(where: Instance) -> facts.Formats:
    """Segments and spools that only a newer trackd reads."""
    newer = []
    for path in where.wal.glob("*.wal"):
        with suppress(OSError, segment.HeaderDamaged):
            try:
                segment.decode_header(_start(path, segment.HEADER_BYTES))
            except segment.UnsupportedVersion as error:
                newer.append(facts.Newer(str(path), error.found, error.supported))
    for path in where.spool.glob("*/*.head"):
        with suppress(OSError, struct.error):
            words = struct.unpack_from("=2Q", _start(path, 16))
            if words[spool.MAGIC] == spool.MAGIC_WORD and words[spool.FORMAT] > SPOOL_FORMAT:
                newer.append(facts.Newer(str(path), words[spool.FORMAT], SPOOL_FORMAT))
    return facts.Formats(tuple(newer))


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def see_cookies(where: Instance, settings: Settings) -> list[facts.Cookie]:
    """Our own, and the upstream hub's where one is named."""
    named = settings.upstream_cookie
    return [_cookie(where.cookie)] + ([_cookie(Path(named), is_upstream=True)] if named else [])


def _cookie(path: Path, *, is_upstream: bool = False) -> facts.Cookie:
    try:
        instance.read_cookie(path)
    except FileNotFoundError:
        return facts.Cookie(str(path), "missing", is_upstream=is_upstream)
    except (places.UnsafePlaceError, OSError, ValueError) as error:
        return facts.Cookie(str(path), "bad", str(error), is_upstream)
    return facts.Cookie(str(path), "ok", is_upstream=is_upstream)

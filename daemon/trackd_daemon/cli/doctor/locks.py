"""Who holds a lock, without taking it from anybody."""

import fcntl
import os
import struct
from pathlib import Path

from trackd_proto.layout import Instance

from trackd_daemon.doctor import facts


def see_lock(where: Instance) -> facts.Lock:
    """daemon.lock. Raises OSError other than that it does not exist."""
    path = where.daemon_lock
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return facts.Lock(str(path), is_held=False)
    try:
        status = os.fstat(descriptor)
        try:
            # Shared and for a moment: a daemon that starts just now tries for a whole second.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return facts.Lock(str(path), is_held=True, holders=_holders(status))
        except OSError as error:
            return facts.Lock(str(path), is_held=False, error=error.strerror or str(error))
    finally:
        os.close(descriptor)
    return facts.Lock(str(path), is_held=False)


def _holders(status: os.stat_result) -> tuple[int, ...]:
    try:
        return holders(Path("/proc/locks").read_text(), status.st_dev, status.st_ino)
    except (OSError, UnicodeDecodeError):
        return ()


def holders(text: str, device: int, inode: int) -> tuple[int, ...]:
    """The processes that hold a flock on a file, by the lines of /proc/locks. Those of other containers are missing."""
    name = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    rows = [line.split() for line in text.splitlines()]
    # "1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF"; who waits has "->" as its second word.
    flocks = [row for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[4].isdecimal() and row[4] != "0"]
    exact = [int(row[4]) for row in flocks if row[5] == name]
    # btrfs and overlays show another device there than stat() does.
    loose = [int(row[4]) for row in flocks if row[5].rpartition(":")[2] == str(inode)]
    return tuple(exact or loose)


def is_byte_locked(path: Path, offset: int) -> bool | None:
    """Whether somebody holds the POSIX lock on a byte; None where that cannot be told. Takes no lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # struct flock of 64-bit Linux: type, whence, start, length, pid
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)

"""The trainer's side of a spool on disk: making heads and chunks and mapping them."""

import contextlib
import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

from trackd_proto import spool, version

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_ZEROS: Final = bytes(64 * 1024)
_WINDOW_BYTES: Final = 64 * 1024


class NoSpaceError(OSError):
    """A chunk could not be made: quota, disk or inodes are used up."""


def create_head(directory: Path, writer_id: bytes, target: spool.Target) -> mmap.mmap:
    """A new writer's head, mapped, with the words of the owner filled in."""
    path = directory / f"{writer_id.hex()}.head"
    partial = path.with_suffix(".new")
    partial.unlink(missing_ok=True)  # of a try that was interrupted
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _allocate(fd, spool.HEAD_BYTES)
        head = mmap.mmap(fd, spool.HEAD_BYTES)
        with memoryview(head) as view:
            spool.put_area(view, spool.TARGET_OFFSET, target)
            with view.cast("Q") as words:
                words[spool.FORMAT] = version.SPOOL_FORMAT
                words[spool.PID] = os.getpid()
                words[spool.START_TICKS] = start_ticks(os.getpid())
                words[spool.PID_NAMESPACE] = pid_namespace()
                words[spool.ALIVE_OFFSET] = hold_alive(directory)
                words[spool.MAGIC] = spool.MAGIC_WORD
        partial.rename(path)  # a courier never sees half a head
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return head


class Roomless:
    """Of a chunk that is only in memory: lets in one record at a time, so that space is looked for before each."""

    def advance(self, end: int) -> int:
        """Room up to `end` and no further."""
        return end


def in_memory(size: int) -> tuple[mmap.mmap, "Chunk"]:
    """A head and a first chunk for a lane that finds no space for its files. They are gone when the process is."""
    chunk = Chunk(-1, size)
    chunk.number, chunk.filler = 0, Roomless()
    return mmap.mmap(-1, spool.HEAD_BYTES), chunk


def move_out(
    directory: Path, writer_id: bytes, target: spool.Target, head: mmap.mmap | bytearray, chunk: "Chunk", end: int
) -> tuple[mmap.mmap, "Chunk"]:
    """The files of a lane that was in memory, with its chunk's bytes up to `end` and its own words. Raises OSError.

    An interrupted one is done again: until the new head says what is published a courier takes nothing from it.
    """
    begin = spool.CHUNK_HEADER.size
    moved = map_chunk(directory, writer_id, 0, len(chunk))
    if moved.filler is not None:
        moved.filler.advance(end)  # with zeros
    moved[begin:end] = chunk[begin:end]
    path = directory / f"{writer_id.hex()}.head"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        new = create_head(directory, writer_id, target)
    else:
        try:
            new = mmap.mmap(fd, spool.HEAD_BYTES)
        finally:
            os.close(fd)
    with memoryview(head) as old_view, memoryview(new) as view, old_view.cast("Q") as old, view.cast("Q") as words:
        for word in (*_MOVED, spool.PUBLISHED, spool.CLOSED):
            words[word] = old[word]
    return new, moved


_MOVED: Final = (
    spool.ASSIGNED, spool.LOSS_FIRST, spool.LOSS_COUNT, spool.REFUSED, spool.ROLLS, spool.UNPREPARED, spool.ASSUMED,
    spool.UNSAID,
)  # fmt: skip


class Filler:
    """Writes zeros into a chunk ahead of its records, a window at a time.

    The first touch of a page that is only allocated takes 4 µs, in which the file system finds a block for it; of one
    that is in memory 0.1 µs, and the write itself 0.1 µs per KiB. Holds no descriptor: an interrupt could leak it.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._filled = spool.CHUNK_HEADER.size

    def advance(self, end: int) -> int:
        """Fill up to `end` at least; how far it is filled now. What stands beyond that is overwritten later."""
        if self._filled < min(end, self._size):
            after = min((end + _WINDOW_BYTES) & -_WINDOW_BYTES, self._size)
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    _fill(fd, self._filled, after)
                finally:
                    os.close(fd)
            except OSError:
                after = self._size  # the space is allocated: it works without, only slower
            self._filled = after
        return self._filled


class Chunk(mmap.mmap):
    """A mapped chunk that knows its place: what belongs to it changes with it in one store."""

    number: int
    filler: Filler | Roomless | None
    """What fills it; None if the courier made it ready."""


NO_CHUNK: Final = Chunk(-1, mmap.PAGESIZE)
"""Of a lane that has ended. Has no room and no file."""
NO_CHUNK.number, NO_CHUNK.filler = -1, None


def map_chunk(directory: Path, writer_id: bytes, number: int, size: int) -> Chunk:
    """Chunk `number`, mapped. Raises NoSpaceError.

    Space is allocated before the first byte is written: a full disk is an error here and never a SIGBUS later.
    """
    path = directory / spool.chunk_name(writer_id.hex(), number)
    is_ready = True
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        is_ready = False
        fd = make_chunk(path, writer_id, number, size, is_filled=False)
    try:
        chunk = Chunk(fd, 0)
    finally:
        os.close(fd)
    chunk.number = number
    chunk.filler = None if is_ready else Filler(path, len(chunk))
    return chunk


def make_chunk(path: Path, writer_id: bytes, number: int, size: int, *, is_filled: bool) -> int:
    """Create an empty chunk with its space allocated; its descriptor. Raises NoSpaceError.

    `is_filled`: all at once, as a Filler would do it. Nobody may do that once the chunk has its name.
    """
    partial = path.with_suffix(f".{os.getpid()}.new")
    check_room(path, size)
    try:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NoSpaceError(error.errno, f"cannot create {path}: {error.strerror}") from error
    try:
        _allocate(fd, size)
        if is_filled:
            _fill(fd, 0, size)
        os.pwrite(fd, spool.encode_chunk_header(writer_id, number, size), 0)
        os.link(partial, path)  # fails if somebody else made it meanwhile; rename would replace theirs
    except FileExistsError:
        os.close(fd)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        os.close(fd)
        raise NoSpaceError(error.errno, f"no space for {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return fd


def recycle_chunk(old: Path, path: Path, writer_id: bytes, number: int) -> None:
    """Make a chunk that is needed no more chunk `number`, in its own space: on a full disk others would take that."""
    partial = path.with_suffix(f".{os.getpid()}.new")
    old.rename(partial)
    try:
        fd = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size
            _fill(fd, 0, size)
            os.pwrite(fd, spool.encode_chunk_header(writer_id, number, size), 0)
        finally:
            os.close(fd)
        _rename_new(partial, path)  # fails if the trainer made it meanwhile
    except OSError as error:
        raise NoSpaceError(error.errno, f"no space for {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _rename_new(old: Path, new: Path) -> None:
    """Rename a file to a name that must not exist yet. Raises OSError."""
    import ctypes  # noqa: PLC0415 - for the courier only; the trainer does not pay for it

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        os.link(old, new)  # takes an inode on tmpfs, which a full one has not
        return
    if rename(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(new))
    os.link(old, new)  # a file system without that flag


def check_room(path: Path, size: int) -> None:
    """Ask before trying: a file system that is nearly full takes milliseconds to find that out, and to clean up.

    Raises NoSpaceError. Of what is not there yet its nearest ancestor that is there is asked.
    """
    place = path.parent
    while True:
        try:
            status = os.statvfs(place)
            break
        except FileNotFoundError:
            place = place.parent
        except OSError:
            return  # trying will tell
    if status.f_bavail * status.f_frsize < size or (status.f_files and not status.f_favail):
        raise NoSpaceError(errno.ENOSPC, f"no space for {path}: {os.strerror(errno.ENOSPC)}")


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    _fill(fd, 0, size)  # macOS, exotic file systems: writing is the only allocation there is


def _fill(fd: int, start: int, end: int) -> None:
    for offset in range(start, end, len(_ZEROS)):
        os.pwrite(fd, memoryview(_ZEROS)[: end - offset], offset)


def hold_alive(directory: Path) -> int:
    """Hold a lock on one byte of `<session>/alive` as long as this process lives; the byte's offset.

    A POSIX lock: forked children do not inherit it, and whoever can take it knows that its owner is dead, even across
    PID namespaces, where a pid says nothing. Memoized per process: closing any descriptor of the file gives it up.
    """
    key = (os.getpid(), str(directory))
    if key not in _held:
        offset = int.from_bytes(os.urandom(5), "big") + 1
        fd = os.open(directory / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.suppress(OSError):  # no locks here (some network file systems): pid and start time must do
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        _held[key] = offset
    return _held[key]


_held: dict[tuple[int, str], int] = {}


def start_ticks(pid: int, unsure: int = 0) -> int:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); 0 if there is none.

    `unsure`: what to return if that cannot be told at the moment, for want of descriptors, say.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - the trainer does not need pathlib's layers here
            return int(file.read().rpartition(b") ")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except (OSError, IndexError, ValueError):
        return unsure


def pid_namespace() -> int:
    """Inode of this process's PID namespace; 0 where there are none."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0

"""The private places of one user on one machine: home, host id, directories and files that nobody else may read.

The trainer calls this in `init()`: standard library only, and nothing that is slow to import.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from trackd_proto.layout import Instance, host_id

_PRIVATE_DIRECTORY = 0o700
_PRIVATE_FILE = 0o600


class UnsafePlaceError(OSError):
    """A directory or file that another user could read or change. The message says what to do."""


def find_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where all state lives: TRACKD_HOME, else $XDG_STATE_HOME/trackd, else ~/.local/state/trackd."""
    if home := environ.get("TRACKD_HOME"):
        return Path(home).expanduser().absolute()
    state = environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()) / "trackd"


def this_host() -> str:
    """The host id of this machine or container (see layout.host_id)."""
    return host_id(_machine_id(), os.uname().nodename, _container_id())


def instance(home: Path | None = None) -> Instance:
    """The paths of this machine's instance directory under `home` (default: find_home()). Touches nothing."""
    return Instance(home if home is not None else find_home(), this_host())


def prepare(where: Instance) -> None:
    """Create home and instance directory, or check them. Raises UnsafePlaceError; other OSErrors name the path."""
    where.home.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    status = where.home.stat()
    if status.st_uid not in (os.geteuid(), 0) or (status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX):
        raise UnsafePlaceError(
            f"{where.home} belongs to uid {status.st_uid} or can be written by everybody: "
            "set TRACKD_HOME to a directory of your own"
        )
    private_directory(where.directory)


def private_directory(path: Path) -> None:
    """Make `path` a directory that only this user can enter, or check that it is one. Its parent must exist."""
    try:
        path.mkdir(mode=_PRIVATE_DIRECTORY)
    except FileExistsError:
        pass
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafePlaceError(f"{path} is not a directory (links are not followed): remove it or set TRACKD_HOME")
    _check_owner(path, status)


def read_private(path: Path, limit: int = 1 << 20) -> bytes:
    """The content of a file that only this user can read. Raises FileNotFoundError, UnsafePlaceError."""
    try:
        # O_NONBLOCK: a planted FIFO must not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UnsafePlaceError(f"cannot open {path} ({error.strerror}): remove it and start again") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafePlaceError(f"{path} is not a plain file: remove it and start again")
        _check_owner(path, status)
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def open_log(path: Path) -> int:
    """A log that only this user can read, for appending; created if there is none. Raises UnsafePlaceError."""
    # O_NONBLOCK: a planted FIFO that nobody reads must not hang us.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, _PRIVATE_FILE)
    except OSError as error:
        raise UnsafePlaceError(f"cannot open {path} ({error.strerror}): remove it and start again") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise UnsafePlaceError(f"{path} is not a plain file of its own: remove it and start again")


def write_private(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Replace `path` by a file with `data` that only this user can read, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        os.write(descriptor, data)
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if is_durable:
        sync_directory(path.parent)


def create_private(path: Path, data: bytes) -> bool:
    """Create `path` with `data`, whole or not at all; False if it exists already (another process was first)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_private(temporary, data)
    try:
        os.link(temporary, path)
        sync_directory(path.parent)
        return True
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make names created, renamed or removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UnsafePlaceError(
            f"{path} belongs to uid {status.st_uid}, not to you (uid {os.geteuid()}): set TRACKD_HOME"
        )
    if status.st_mode & 0o077:
        raise UnsafePlaceError(f"{path} is open to other users (mode {status.st_mode & 0o777:o}): run chmod go= {path}")


def _machine_id() -> str:
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            if text := Path(name).read_text().strip():
                return text
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def _container_id() -> str:
    """What tells two containers on one machine apart; "" outside of one. The id survives a restart of the container."""
    if not (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()):
        return ""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except (OSError, UnicodeDecodeError):
        return ""
    # Runtimes bind-mount /etc/hostname from the container's own directory: .../containers/<id>/hostname
    return next((line.split()[3] for line in mounts.splitlines() if " /etc/hostname " in line), "")

"""Where the daemon is found: its socket and daemon.json, kept in place while it runs."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from trackd_proto.layout import Installation, Instance, Published
from trackd_proto.local import installations, instance, places
from trackd_proto.version import PROTOCOL_MAX, PROTOCOL_MIN, VERSION


def socket_path(where: Instance, epoch: int, attempt: int = 0) -> Path:
    """The unique socket of this incarnation, in a private directory. Raises UnsafePlaceError."""
    path = where.socket(epoch, Path(tempfile.gettempdir()), os.geteuid())
    if path.parent != where.directory:
        places.private_directory(path.parent)
    return path if not attempt else path.with_name(f"d{epoch}-{attempt}.sock")


def publish(
    where: Instance, epoch: int, socket: Path, role: str, http_url: str, newest: Installation | None = None
) -> Published:
    """Write daemon.json, atomically. `newest`: the installation to keep in it, if there is no file that names one."""
    before = instance.read_published(where)
    if before is not None:
        newest = before.newest or newest
    started = time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - _started_monotonic())
    published = Published(
        pid=os.getpid(),
        start_time=started,
        epoch=epoch,
        socket=str(socket),
        version=VERSION,
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        role=role,
        http_url=http_url,
        newest=installations.newest(newest, installations.own()),
    )
    places.write_private(where.published, msgspec.json.encode(published))
    return published


def is_in_place(where: Instance, published: Published) -> bool:
    """Socket and daemon.json are where they should be."""
    with suppress(OSError):
        return Path(published.socket).exists() and instance.read_published(where) == published
    return False


def _started_monotonic() -> float:
    """When this process started, on the monotonic clock."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.clock_gettime(time.CLOCK_MONOTONIC)

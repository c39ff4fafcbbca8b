"""What `trackd doctor` has seen. Values only: collecting them is `trackd_daemon.cli.doctor`'s. Pure.

Sizes are in bytes, times in microseconds since the epoch, ages and skews in seconds.
"""

from dataclasses import dataclass, field
from typing import Literal

from trackd_proto.layout import Published


@dataclass(frozen=True, slots=True)
class Place:
    """A directory or file of the home."""

    path: str
    role: Literal["home", "directory", "file"]
    """"home" may be shared and may be a link; the others must belong to this user alone."""
    kind: Literal["missing", "directory", "file", "link", "other"]
    owner: int = 0
    mode: int = 0
    is_writable: bool = True
    error: str = ""
    """Why it could not be looked at."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system below a directory."""

    path: str
    kind: str
    """As in mountinfo: ext4, nfs4, overlay; "" where the system does not tell."""
    total: int
    free: int
    """For this user."""
    inodes: int
    """0 where the file system does not count them."""
    inodes_free: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What trackd may take of the disk, and what it has taken. 0: the default that depends on the disk."""

    wal_quota: int = 0
    min_free: int = 0
    spool_quota: int = 0
    wal_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lock:
    """daemon.lock."""

    path: str
    is_held: bool
    holders: tuple[int, ...] = ()
    """Process ids; empty where the kernel does not show them."""
    error: str = ""
    """Why this file system cannot lock."""


@dataclass(frozen=True, slots=True)
class RouteLag:
    """A destination of the running daemon."""

    route: str
    state: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class Daemon:
    """What is published, and what answers there."""

    published: Published | None
    is_socket_there: bool = False
    outcome: Literal["none", "ok", "silent", "impostor", "version", "unsafe"] = "none"
    """"none": nothing is published, so nothing was asked."""
    error: str = ""
    version: str = ""
    routes: tuple[RouteLag, ...] = ()
    warnings: tuple[str, ...] = ()
    lost_records: int = 0


@dataclass(frozen=True, slots=True)
class Socket:
    """Where the next incarnation will listen."""

    path: str
    path_bytes: int
    is_near: bool
    """In the instance directory itself."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A file that proves who one is."""

    path: str
    state: Literal["ok", "missing", "bad"]
    error: str = ""
    is_upstream: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file that carries a time."""

    path: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Clock:
    """This machine's clock, and what was written by it before."""

    now_us: int
    stamps: tuple[Stamp, ...] = ()
    is_cut_off: bool = False
    """There were more files than were looked at."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Of the parts that must fit together."""

    own: str
    installed: str
    """Of the distribution `trackd`, as its metadata say; "" if there is none."""
    has_sdk: bool
    missing_hub: tuple[str, ...]
    """Packages of the hub extra that cannot be imported."""


@dataclass(frozen=True, slots=True)
class Newer:
    """A file that only a newer trackd reads."""

    path: str
    found: int
    supported: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """The configured next hop."""

    address: str
    """"" for the embedded hub."""
    outcome: Literal[
        "embedded", "ok", "unresolved", "unreachable", "silent", "cookie", "impostor", "version", "refused"
    ]
    error: str = ""
    skew_s: float | None = None
    """The hub's clock minus ours, where it told the time."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One writer's spool."""

    session: str
    """Directory."""
    owner: Literal["alive", "dead", "unknown"]
    has_courier: bool
    last_seq: int
    durable: int

    @property
    def unsent(self) -> int:
        """Records that only the spool has."""
        return max(self.last_seq - self.durable, 0)


@dataclass(frozen=True, slots=True)
class Offline:
    """The directory of an offline run."""

    path: str
    size: int
    records: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not in the hub, as far as files tell."""

    lanes: tuple[Lane, ...] = ()
    unreadable: tuple[str, ...] = ()
    wal_path: str = ""
    wal_records: int | None = None
    """In the log of a daemon that does not run, not committed; None if that could not be told or one runs."""
    wal_bytes: int = 0
    offline: tuple[Offline, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpu:
    """NVIDIA's management library."""

    has_driver: bool
    has_library: bool
    devices: int | None = None
    error: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel and the spool's file system can do."""

    wipes_on_fork: bool
    allocates: bool | None
    """Whether a file can be allocated and mapped; None: could not be tried without leaving a trace."""
    path: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A group of facts that could not be had."""

    reason: str


@dataclass(frozen=True, slots=True)
class Formats:
    """Files of newer versions."""

    newer: tuple[Newer, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Every directory and private file, seen by `user`."""

    user: int
    places: tuple[Place, ...] = field(default_factory=tuple)
    open_above: str = ""
    """A directory above the home in which everybody can rename what belongs to others."""

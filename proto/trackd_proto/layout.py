"""Names and places under a trackd home. Pure: it joins paths and touches nothing.

::

    <home>/<host_id>/                 one instance directory per machine (homes can be shared over NFS), 0700
        daemon.lock                   flock of the running daemon; the lock is the truth
        spawn.lock                    flock held while somebody starts one
        epoch                         decimal counter, bumped under daemon.lock at each start
        daemon.json                   what runs here (Published); written last, atomically
        cookie                        32 random bytes as hex, 0600: who reads it is this user
        port                          the dashboard's port, kept across restarts
        daemon.log
        wal/                          segments of the agent
        spool/<session>/              one per training process, see spool.py
        store/                        the embedded hub
    <runtime>/d<epoch>.sock           gRPC socket of one incarnation; in the instance directory where the path
                                      is short enough, else in a private directory named by a hash
"""

import os
from pathlib import Path
from typing import Final

import msgspec

MAX_SOCKET_PATH: Final = 100
"""Bytes. The kernel takes 107; some room for names."""


class Installation(msgspec.Struct, frozen=True):
    """A trackd whose daemon can be started on this machine."""

    version: str
    command: list[str]
    place: str
    """The directory of its daemon's package: gone when it is uninstalled."""


class Published(msgspec.Struct, frozen=True):
    """daemon.json: how to reach the daemon that owns an instance directory."""

    pid: int
    start_time: float
    """Of the process, in seconds since the epoch (psutil's create_time)."""
    epoch: int
    socket: str
    """Absolute path of its gRPC unix socket."""
    version: str
    protocol_min: int
    protocol_max: int
    role: str
    """"agent", "hub" or "agent+hub"."""
    http_url: str = ""
    """http://127.0.0.1:PORT when it is a hub."""
    newest: Installation | None = None
    """The newest that ever owned the directory and still exists, perhaps not this daemon's: it is started next time."""


class Instance:
    """The paths of one instance directory."""

    def __init__(self, home: Path, host: str) -> None:
        self.home = home
        self.directory = home / host
        self.daemon_lock = self.directory / "daemon.lock"
        self.spawn_lock = self.directory / "spawn.lock"
        self.epoch = self.directory / "epoch"
        self.published = self.directory / "daemon.json"
        self.cookie = self.directory / "cookie"
        self.port = self.directory / "port"
        self.log = self.directory / "daemon.log"
        self.wal = self.directory / "wal"
        self.spool = self.directory / "spool"
        self.store = self.directory / "store"

    def socket(self, epoch: int, temp: Path, uid: int) -> Path:
        """Where incarnation `epoch` listens; a hashed private directory under `temp` if the home is too long."""
        name = f"d{epoch}.sock"
        near = self.directory / name
        if len(os.fsencode(near)) <= MAX_SOCKET_PATH:
            return near
        digest = _sha256(os.fsencode(self.directory))[:16]
        return temp / f"trackd-{uid}-{digest}" / name


def host_id(machine_id: str, hostname: str, container: str) -> str:
    """Twelve hex digits that differ between machines and containers sharing one home."""
    return _sha256("\0".join((machine_id, hostname, container)).encode())[:12]


def _sha256(data: bytes) -> str:
    import hashlib  # noqa: PLC0415 - loads OpenSSL: 3 ms that `import trackd` does not have

    return hashlib.sha256(data).hexdigest()

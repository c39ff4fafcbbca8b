"""The right to an instance directory: daemon.lock is the truth, epoch counts who had it."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from trackd_proto.layout import Instance
from trackd_proto.local import places

from trackd_daemon.errors import TrackdError

_LOCK_WAIT_S = 1.0

_LAST_EPOCH = 1 << 48
"""No directory gets there by counting; a proof and a message have 64 bits for it."""


class BusyError(TrackdError):
    """Another daemon owns the directory."""


class Ownership:
    """The held lock of an instance directory. The descriptor is never inherited."""

    def __init__(self, where: Instance) -> None:
        """Take the lock. Raises BusyError, UnsafePlaceError, OSError.

        A daemon that is just leaving gets a second to let go.
        """
        places.prepare(where)
        self._where = where
        self._descriptor = os.open(where.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise BusyError(f"another trackd daemon owns {where.directory}") from None
                time.sleep(0.02)

    def next_epoch(self) -> int:
        """Count up the directory's epoch, durably. A damaged counter goes on behind every socket that is left."""
        try:
            last = int(places.read_private(self._where.epoch, 64))
            if not 0 <= last < _LAST_EPOCH:
                raise ValueError(f"no epoch: {last}")
        except (FileNotFoundError, ValueError):
            last = max((_epoch_of(path) for path in self._where.directory.glob("d*.sock")), default=0)
        places.write_private(self._where.epoch, str(last + 1).encode())
        return last + 1

    def is_valid(self) -> bool:
        """The lock file in the directory is still the one that is locked (nobody has removed the home)."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._where.daemon_lock.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let go, as the very last thing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sweep_sockets(directory: Path, epoch: int) -> None:
    """Remove the sockets of earlier incarnations; call with the lock held."""
    for path in directory.glob("d*.sock"):
        if _epoch_of(path) < epoch:
            with suppress(OSError):
                path.unlink()


def _epoch_of(path: Path) -> int:
    digits = path.stem[1:].partition("-")[0]
    return int(digits) if digits.isdecimal() else 0

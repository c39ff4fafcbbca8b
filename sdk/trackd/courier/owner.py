"""Is the process that owns a lane alive, and if not, how did it end?"""

import fcntl
import os
import select
import struct
from pathlib import Path
from typing import Final, NamedTuple

from trackd import spool as files

_PIDFD_GET_INFO: Final = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT: Final = 1 << 3
_INFO: Final = struct.Struct("<QQ11Ii")


class Ending(NamedTuple):
    """How a process ended, as an EXIT record says it."""

    state: str
    exit_code: int | None
    cause: str


_UNKNOWN: Final = Ending("crashed", None, "the process is gone; how it ended is not known")


class Owner:
    """One process, held by a pidfd where the system has them, else looked up by pid and start time.

    Of a process in another PID namespace only its lock in the session directory can be asked.
    """

    def __init__(self, pid: int, start_ticks: int, namespace: int, alive: tuple[Path, int]) -> None:
        self.pid = pid
        self._alive = alive
        self._start_ticks = start_ticks
        self._is_foreign = bool(namespace) and namespace != files.pid_namespace()
        self._pidfd: int | None = None
        self._is_dead = False
        if not self._is_foreign and self._matches():
            try:
                self._pidfd = os.pidfd_open(pid)
            except (OSError, AttributeError):
                self._pidfd = None

    def is_dead(self) -> bool:
        """Whether it is gone for good."""
        if not self._is_dead:
            if self._is_foreign:
                self._is_dead = _can_lock(*self._alive)
            elif self._pidfd is not None:
                poll = select.poll()
                poll.register(self._pidfd, select.POLLIN)
                self._is_dead = bool(poll.poll(0))
            else:
                self._is_dead = not self._matches()
        return self._is_dead

    def ending(self) -> Ending:
        """How it ended, as far as the kernel tells (Linux 6.15 keeps the exit code of a pidfd)."""
        if self._pidfd is None:
            return _UNKNOWN
        buffer = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, buffer)
        except OSError:
            return _UNKNOWN
        fields = _INFO.unpack(buffer)
        return describe(fields[-1]) if fields[0] & _PIDFD_INFO_EXIT else _UNKNOWN

    def close(self) -> None:
        """Let go of the process."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _matches(self) -> bool:
        if not self._start_ticks:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except OSError:
                return True
            return True
        return files.start_ticks(self.pid) == self._start_ticks


def _can_lock(path: Path, offset: int) -> bool:
    """Whether nobody holds the lock on this byte; False where that cannot be told."""
    if not offset:
        return False
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def describe(wait_status: int) -> Ending:
    """An exit status as wait(2) gives it, in words."""
    signal_number = wait_status & 0x7F
    code = (wait_status >> 8) & 0xFF
    if signal_number == 9:
        return Ending("killed", 137, "killed by SIGKILL (the out-of-memory killer, a scheduler or a person)")
    if signal_number == 15:
        return Ending("killed", 143, "terminated by SIGTERM")
    if signal_number:
        import signal  # noqa: PLC0415

        try:
            name = signal.Signals(signal_number).name
        except ValueError:
            name = f"signal {signal_number}"
        return Ending("crashed", 128 + signal_number, f"ended by {name}")
    if code:
        return Ending("failed", code, f"exited with code {code} without finish()")
    return Ending("finished", 0, "exited without finish()")

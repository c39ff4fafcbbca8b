"""Is the process that owns a lane alive, and if not, how did it end?"""

import contextlib
import fcntl
import os
import select
import struct
from pathlib import Path
from typing import Final, NamedTuple

from trackd import spool as files
from trackd.courier.memory import OomWatch

_SIGKILL: Final = 9
_PIDFD_GET_INFO: Final = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT: Final = 1 << 3
_INFO: Final = struct.Struct("<QQ11Ii")


class Ending(NamedTuple):
    """How a process ended, as an EXIT record says it."""

    state: str
    exit_code: int | None
    cause: str


_UNKNOWN: Final = Ending("lost contact", None, "the process is gone; how it ended is not known")
_FAULTS: Final = frozenset({3, 4, 5, 6, 7, 8, 11, 31})
"""Signals that a program earns by its own doing: SIGQUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS."""
_STATE_FIELD: Final = 3
_EXIT_CODE_FIELD: Final = 52
_UNSURE: Final = -1
"""As a start time: the process can be neither seen nor missed now."""


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
        if not self._is_foreign:
            self._look_up()

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
                self._is_dead = not self._look_up()
        return self._is_dead

    def ending(self, memory: OomWatch | None = None) -> Ending:
        """How it ended, as far as the kernel tells somebody who is not its parent. `memory`: made while it lived."""
        status = self._wait_status()
        if status is None:
            return _UNKNOWN
        ending = describe(status)
        if status & 0x7F == _SIGKILL and memory is not None and (why := memory.verdict()):
            return ending._replace(cause=f"out of memory: {why}")
        return ending

    def exit_code(self) -> int | None:
        """The code it left with; None if a signal ended it or the kernel does not tell."""
        status = self._wait_status()
        return (status >> 8) & 0xFF if status is not None and not status & 0x7F else None

    def _wait_status(self) -> int | None:
        """Of a dead process: from /proc until its parent has reaped it, from its pidfd (Linux 6.15) afterwards."""
        if self._is_foreign:
            return None
        status = _zombie_status(self.pid, self._start_ticks)
        if status is not None or self._pidfd is None:
            return status
        buffer = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, buffer)
        except OSError:
            return None
        fields = _INFO.unpack(buffer)
        return int(fields[-1]) if fields[0] & _PIDFD_INFO_EXIT else None

    def close(self) -> None:
        """Let go of the process."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _look_up(self) -> bool:
        """Whether it is there, as far as can be told; held from then on if that is sure."""
        if self._start_ticks:
            found = files.start_ticks(self.pid, _UNSURE)
            if found != self._start_ticks:
                return found == _UNSURE
        elif not _exists(self.pid):
            return False
        with contextlib.suppress(OSError, AttributeError):
            self._pidfd = os.pidfd_open(self.pid)
        return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a damaged head may say a number that no process can have
        return False
    except OSError:
        return True
    return True


def _zombie_status(pid: int, start_ticks: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # from field 3 on: the name before may contain anything
    if len(fields) < _EXIT_CODE_FIELD - 2 or fields[0] not in "ZX" or int(fields[19]) != start_ticks:
        return None
    return int(fields[_EXIT_CODE_FIELD - _STATE_FIELD])


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
    except (OSError, OverflowError):
        return False
    finally:
        os.close(fd)
    return True


def describe(wait_status: int) -> Ending:
    """An exit status as wait(2) gives it, in words."""
    signal_number = wait_status & 0x7F
    code = (wait_status >> 8) & 0xFF
    if signal_number == _SIGKILL:
        return Ending("killed", 137, "SIGKILL (the out-of-memory killer, a scheduler or a person)")
    if signal_number:
        import signal  # noqa: PLC0415

        try:
            name = signal.Signals(signal_number).name
        except ValueError:
            name = f"signal {signal_number}"
        return Ending("crashed" if signal_number in _FAULTS else "killed", 128 + signal_number, name)
    if code:
        return Ending("failed", code, f"exited with code {code} without finish()")
    return Ending("finished", 0, "exited without finish()")

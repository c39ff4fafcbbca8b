"""A session: one training process, its spool directory and its courier.

The courier is exec'd, never forked, through a process that exits and is reaped at once, so that it is nobody's child:
a user's `os.wait()` or SIGCHLD handler does not see it. It starts with no descriptor of the trainer and in its own
terminal session.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from trackd_proto import layout, spool, version
from trackd_proto.local import places

from trackd import messages
from trackd import spool as files
from trackd.lane import Lane, new_writer_id, now_us

_BOOT: Final = """
import sys, types
sys.path[:0] = sys.argv[1].split(":")
sys.modules["ssl"] = None
for name in ("_sha2", "_sha256"):
    try:
        __import__(name)
        sys.modules["_hashlib"] = None
    except ImportError:
        pass
package = sys.modules["trackd"] = types.ModuleType("trackd")
package.__path__ = [sys.argv[2]]
from trackd.courier.main import main
main(sys.argv[3:])
"""
# The package itself is an empty stand-in: what its __init__ loads for scripts would double the courier's start.
# OpenSSL takes 5 MB; gRPC brings its own, asyncio does without, and Python has its own SHA-2 (where it was built so).
_LAUNCH: Final = '"$@" </dev/null >/dev/null 2>&1 &'
_MOST_WAITING: Final = 32
"""Ended lanes of which `flush()` could still be asked whether they are durable."""


class Session:
    """The session of this process. Made by the first `init()`; a forked child that calls `init()` gets its own."""

    def __init__(self, instance: layout.Instance, quota_bytes: int) -> None:
        self.instance = instance
        self.quota_bytes = quota_bytes
        self.pid = os.getpid()
        self.directory = instance.spool / new_writer_id().hex()
        self._lanes: list[Lane] = []
        self._was_served = False
        self._launch_failed = False
        self._is_made = False

    def prepare(self) -> None:
        """Make sure that the directory is there, also if somebody cleaned up under us. Raises OSError: no space."""
        if self.directory.is_dir() and (self._is_made or self.pid != os.getpid()):
            return
        self.pid = os.getpid()  # a forked child that outlives its parent's session goes on with it
        self.instance.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_directory()
        self._is_made = True

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        info = spool.SessionInfo(
            format=version.SPOOL_FORMAT,
            home=str(self.instance.home),
            host_id=self.instance.directory.name,
            pid=self.pid,
            created_us=now_us(),
            python=sys.executable,
            start_ticks=files.start_ticks(self.pid),
            pid_namespace=files.pid_namespace(),
            alive_offset=files.hold_alive(self.directory),
            spool_quota_bytes=self.quota_bytes,
        )
        places.write_private(self.directory / "session.json", msgspec.json.encode(info), is_durable=False)

    _current: "Session | None" = None
    _lock = threading.Lock()

    @classmethod
    def current(cls, instance: layout.Instance, quota_bytes: int) -> "Session":
        """The session of this process for this home, made if there is none."""
        with cls._lock:
            session = cls._current
            if session is None or session.pid != os.getpid() or session.instance.directory != instance.directory:
                session = cls._current = cls(instance, quota_bytes)
            return session

    def lane(self, target: spool.Target, start: Mapping[str, Any]) -> Lane:
        """A new writer of a run; `start` is the body of its START record. Makes sure that a courier is there."""
        self._was_served = self._was_served or any(lane.has_courier() for lane in self._lanes)
        self._forget_ended()
        lane = Lane(self.directory, target, start, self.quota_bytes, self)
        self._lanes.append(lane)
        self.launch_courier()
        return lane

    def launch_courier(self) -> None:
        """Start the courier unless one serves the session; a second one finds the lock taken and leaves.

        A forked child is served by its parent's, if that has not left.
        """
        is_child = self.pid != os.getpid()
        if (self._was_served or is_child) and self._is_served(is_expected=is_child):
            return
        try:
            launch(courier_command(str(self.directory)))
            self._launch_failed = False
        except OSError as error:
            self._launch_failed = True
            messages.warn_once(
                f"cannot start the process that sends what is logged ({error}): it is kept in {self.directory}, and "
                "tried again; if there are too many processes (ulimit -u), allow more",
                key="no courier",
            )

    def see_to_courier(self) -> None:
        """Start it if that failed before."""
        if self._launch_failed:
            self.launch_courier()

    def _forget_ended(self) -> None:
        """A sweep in one process has thousands of runs; the descriptors and the memory of each end with it."""
        left = len(self._lanes)
        for lane in list(self._lanes):
            if lane.let_go(anyway=left > _MOST_WAITING):
                left -= 1
                with contextlib.suppress(ValueError):  # another thread's init() was quicker
                    self._lanes.remove(lane)

    def _is_served(self, *, is_expected: bool) -> bool:
        """`is_expected`: where there was none yet, one is on its way."""
        import fcntl  # noqa: PLC0415 - only where several runs share a process

        try:
            fd = os.open(self.directory / "courier.lock", os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return is_expected
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False


def courier_command(*arguments: str) -> list[str]:
    """argv of a courier process that imports the same packages as this one and nothing from the working directory."""
    return [sys.executable, "-I", "-c", _BOOT, package_paths(), str(Path(__file__).parent), *arguments]


def package_paths() -> str:
    """Where a process that we start finds the packages that this one has, separated by colons."""
    import trackd_proto  # noqa: PLC0415

    package_roots = [Path(__file__).parent.parent, Path(str(trackd_proto.__file__)).parent.parent]
    site = [p for p in sys.path if p.rstrip("/").endswith(("site-packages", "dist-packages"))]
    return ":".join(dict.fromkeys([*map(str, package_roots), *site]))


def launch(command: list[str]) -> None:
    """Start a program that is not our child, holds none of our descriptors and is in a terminal session of its own.

    SIGCHLD of the short-lived launcher is taken back before anybody's handler can see it.
    """
    shell = "/bin/sh" if os.access("/bin/sh", os.X_OK) else "sh"  # posix_spawnp looks for it; shutil is slow to import
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    with _blocked_sigchld():
        child = os.posix_spawnp(
            shell, [shell, "-c", _LAUNCH, "trackd", *command], os.environ, file_actions=null, setsid=True, setsigmask=()
        )
        with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD: the kernel has reaped it
            os.waitpid(child, 0)


@contextlib.contextmanager
def _blocked_sigchld() -> Any:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        yield
    finally:
        if signal.SIGCHLD not in before:
            if hasattr(signal, "sigtimedwait"):
                signal.sigtimedwait({signal.SIGCHLD}, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

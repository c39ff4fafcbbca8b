"""The lanes of one session directory, whoever serves them: finding, announcing, ending them."""

import contextlib
import fcntl
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from trackd_proto import records, spool, version

from trackd import spool as files
from trackd.courier.lanes import SpoolLane, UnreadableHeadError
from trackd.courier.memory import OomWatch
from trackd.courier.owner import Ending, Owner, describe
from trackd.lane import Lane

_LOCK_NAME: Final = "courier.lock"
_SERVER: Final = struct.Struct("=QQ")
"""What stands in it: pid and start time of the courier that claimed the session last."""
_FULL_RETRY_S: Final = 1.0
_UNSAID: Final = "its last record found no space"
_UNSURE_NS: Final = 100_000_000
"""A directory that changed so recently may change again and keep its time: before Linux 6.13 the clock behind it ticks
every 1 to 10 ms."""


class ServedSession:
    """A session directory whose lock this process holds."""

    def __init__(self, directory: Path, lock: int, info: spool.SessionInfo) -> None:
        self.directory = directory
        self.info = info
        self.owner = _owner(directory, info)
        self._memory = OomWatch(info.pid)
        self.lanes: dict[bytes, SpoolLane] = {}
        self.unreadable: set[str] = set()
        self._unreached: set[str] = set()
        self._lock = lock
        self._seen_mtime_ns = 0
        self._full_until = 0.0
        self._assumed: dict[str, tuple[spool.Target, int]] = {}  # attempt -> the exit code its EXIT record assumes

    @classmethod
    def claim(cls, directory: Path, *, must_be_dead: bool = False) -> "ServedSession | None":
        """Take a session directory, or None if another courier serves it or it is none of ours to read.

        `must_be_dead`: also None if its process lives.
        """
        try:
            lock = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            info = _read_info(directory)
        except (OSError, ValueError, RecursionError):
            os.close(lock)
            return None
        session = cls(directory, lock, info)
        if must_be_dead and not session.owner.is_dead():
            session.close(is_done=False)
            return None
        with contextlib.suppress(OSError):  # a full disk: `is_served` does not know, and that is all
            os.pwrite(lock, _SERVER.pack(os.getpid(), files.start_ticks(os.getpid())), 0)
        return session

    def find_lanes(self) -> list[SpoolLane]:
        """Lanes that were not there before. Cheap when the directory has not changed."""
        try:
            mtime = self.directory.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        if mtime == self._seen_mtime_ns:
            return []
        self._seen_mtime_ns = mtime if abs(time.time_ns() - mtime) > _UNSURE_NS else 0
        found = []
        for path in sorted(self.directory.glob("*.head")):
            if path.name in self.unreadable or bytes.fromhex(path.stem) in self.lanes:
                continue
            try:
                lane = SpoolLane(path, self.info.spool_quota_bytes)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._look_again(path, error)
                continue
            except ValueError as error:  # one bad head must not stop the others
                self.unreadable.add(path.name)
                print(f"courier: left alone: {error}", file=sys.stderr)
                continue
            self.lanes[lane.writer_id] = lane
            found.append(lane)
        return found

    def _look_again(self, path: Path, error: OSError) -> None:
        """In the next round, though nothing changes here by then: descriptors become free, a file system comes back."""
        self._seen_mtime_ns = 0
        if path.name not in self._unreached:
            self._unreached.add(path.name)
            print(f"courier: cannot read {path} yet: {error}", file=sys.stderr)

    def end_dead(self) -> None:
        """Write the EXIT record of runs whose process died without one, on a writer of our own."""
        for lane in list(self.lanes.values()):
            if lane.is_exit_written or lane.target.role != "main":
                continue
            if said := spool.unpack_ending(lane.word(spool.UNSAID)):
                lane.is_exit_written = self._write_exit(lane.target, Ending(*said, _UNSAID))
            elif not lane.word(spool.CLOSED) and lane.owner.is_dead():
                lane.is_exit_written = self._write_exit(lane.target, lane.owner.ending(self._memory))
        if self._assumed and self.owner.is_dead():
            self._correct()

    def _correct(self) -> None:
        """Python does not tell a program with which code it leaves; the kernel may have told us."""
        code = self.owner.exit_code()
        for attempt, (target, said) in list(self._assumed.items()):
            if code is None or code == said or self._write_exit(target, describe(code << 8)):
                del self._assumed[attempt]

    def _write_exit(self, target: spool.Target, ending: Ending) -> bool:
        """False if there is no space for it at the moment."""
        if time.monotonic() < self._full_until:
            return False
        own = self._own_lane(target)
        if own.is_in_memory:
            self._full_until = time.monotonic() + _FULL_RETRY_S
            (self.directory / f"{own.writer_id.hex()}.head").unlink(missing_ok=True)  # it may be there without a chunk
            return False
        own.append(records.EXIT, ending._asdict())
        own.close()
        self._seen_mtime_ns = 0  # the clock of the file system may not have moved since we looked
        return True

    def finish_sent(self) -> None:
        """Note in the run directory what was logged, and remove what is safe elsewhere."""
        for lane in list(self.lanes.values()):
            if lane.has_files and lane.is_sent() and not self._is_to_end(lane):
                if lane.word(spool.ASSUMED) and lane.word(spool.PID) == self.info.pid:
                    self._assumed[lane.target.attempt] = (lane.target, lane.word(spool.ASSUMED) - 1)
                _note_logged(lane)
                lane.remove_files()
                self.lanes[lane.writer_id] = self.lanes.pop(lane.writer_id)  # in the order in which they ended

    def is_done(self) -> bool:
        """Whether nothing is left to do: every lane's files are gone, and nobody can add one."""
        if self.unreadable or self._assumed or not self.owner.is_dead():
            return False
        # Looked for on the disk too: an EXIT record of ours may just have been written.
        return all(not lane.has_files for lane in self.lanes.values()) and not any(self.directory.glob("*.head"))

    def _is_to_end(self, lane: SpoolLane) -> bool:
        """Whether its EXIT record is still to be written by us: its process died since `end_dead` looked."""
        is_ended = lane.is_exit_written or lane.word(spool.CLOSED)
        if lane.word(spool.UNSAID) and not lane.is_exit_written:
            return True
        return lane.target.role == "main" and not is_ended and lane.owner.is_dead()

    def close(self, is_done: bool) -> None:
        """Let go of the session; remove its directory if everything was sent."""
        for lane in self.lanes.values():
            lane.close()
        self.owner.close()
        if is_done:
            for name in ("session.json", "alive", _LOCK_NAME):
                (self.directory / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a lane appeared meanwhile: the next courier finds it
                self.directory.rmdir()
        os.close(self._lock)

    def _own_lane(self, target: spool.Target) -> Lane:
        start = {
            "project": target.project, "run_id": target.run_id, "attempt": target.attempt,
            "attempt_start_us": target.attempt_start_us, "sdk": version.VERSION,
        }  # fmt: skip
        own = msgspec.structs.replace(target, role="courier", announce=False)
        return Lane(self.directory, own, start, self.info.spool_quota_bytes)


def is_served(directory: Path) -> bool:
    """Whether another courier that claimed it lives. Its lock others hold too, for a moment, to look for one."""
    try:
        pid, ticks = _SERVER.unpack((directory / _LOCK_NAME).read_bytes())
    except (OSError, struct.error):
        return False
    return bool(ticks and pid != os.getpid() and files.start_ticks(pid, ticks) == ticks)


def is_owner_dead(directory: Path) -> bool:
    """Whether the process that made this session directory is gone. Raises OSError or ValueError: it is none."""
    owner = _owner(directory, _read_info(directory))
    try:
        return owner.is_dead()
    finally:
        owner.close()


def _read_info(directory: Path) -> spool.SessionInfo:
    info = msgspec.json.decode((directory / "session.json").read_bytes(), type=spool.SessionInfo)
    if info.format > version.SPOOL_FORMAT:
        raise UnreadableHeadError(f"{directory} has format {info.format}, ours is {version.SPOOL_FORMAT}")
    return info


def _owner(directory: Path, info: spool.SessionInfo) -> Owner:
    return Owner(info.pid, info.start_ticks, info.pid_namespace, (directory / "alive", info.alive_offset))


def _note_logged(lane: SpoolLane) -> None:
    """RUN_DIR/logged.json: what was logged, for `trackd verify`. Merged per writer, replaced atomically."""
    path = Path(lane.target.run_dir) / "logged.json"
    try:
        try:
            noted = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            noted = {"writers": {}}
        position = lane.tail.position
        noted["writers"][lane.writer_id.hex()] = {
            "last_seq": position.next_seq - 1, "crc32": position.crc, "role": lane.target.role,
            "lost": lane.word(spool.LOST),
        }  # fmt: skip
        partial = path.with_suffix(f".{os.getpid()}.new")
        partial.write_text(json.dumps(noted, indent=1))
        partial.rename(path)
    except OSError as error:
        print(f"courier: cannot note what was logged in {path}: {error.strerror}", file=sys.stderr)

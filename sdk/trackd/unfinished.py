"""Which runs of a directory and project have not ended well: where ``resume="auto"`` finds the id to go on with.

::

    <home>/resume/<16 hex of project and directory>/<run id>.json      begun, not ended well (`Entry`)
                                                    <run id>.done      ended well; kept for ids given by a scheduler

One file per run, so that nobody needs a lock: it is claimed by renaming it.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from trackd_proto.local import places

from trackd import messages, naming, scheduler
from trackd import spool as files
from trackd.lane import now_us

_DIRECTORY: Final = "resume"
_OPEN: Final = ".json"
_DONE: Final = ".done"
_MOST_IDS: Final = 10_000


class Entry(msgspec.Struct, frozen=True):
    """Who runs it."""

    run_id: str
    host: str
    pid: int
    start_ticks: int
    pid_namespace: int
    begun_us: int


class Unfinished:
    """The unfinished runs of one project in one directory. What cannot be read or written is as if it were not there:
    a training run does not fail for it."""

    def __init__(self, home: Path, project: str, directory: Path) -> None:
        import hashlib  # noqa: PLC0415 - loads OpenSSL, which only resume="auto" pays for

        digest = hashlib.sha256(f"{project}\0{directory}".encode("utf-8", "surrogateescape")).hexdigest()
        self._parent = home / _DIRECTORY
        self._place = self._parent / digest[:16]
        self._short = digest[:4]
        self._is_of_job = False

    def take(self, environ: Mapping[str, str] = os.environ) -> tuple[str, bool]:
        """(id of the run to go on with, whether it was begun before); a new id if there is none.

        A run whose process lives on this machine is left alone. Under a batch scheduler the id follows from the job's:
        a job that is run again finds its run on any machine.
        """
        job = scheduler.job_name(environ)
        if job:
            return self._of_job(f"{job}-{self._short}", scheduler.is_restart(environ))
        for path, entry in sorted(self._entries(), key=lambda found: -found[1].begun_us):
            if not _is_alive(entry) and self._claim(path):
                return entry.run_id, True
        return naming.new_id(), False

    def begin(self, run_id: str) -> None:
        """This process runs it now."""
        entry = Entry(
            run_id, os.uname().nodename, os.getpid(), files.start_ticks(os.getpid()), files.pid_namespace(), now_us()
        )
        try:
            places.private_directory(self._parent)
            places.private_directory(self._place)
            places.write_private(self._place / (run_id + _OPEN), msgspec.json.encode(entry), is_durable=False)
        except OSError as error:
            messages.warn_once(
                f"cannot note the id of the run in {self._place} ({error}): init(resume='auto') will not find it "
                "again; give it with init(id=...)"
            )

    def end(self, run_id: str) -> None:
        """It has ended well: nobody goes on with it."""
        path = self._place / (run_id + _OPEN)
        with contextlib.suppress(OSError):
            if self._is_of_job:
                path.replace(path.with_name(run_id + _DONE))
            else:
                path.unlink()

    def _of_job(self, name: str, is_restart: bool) -> tuple[str, bool]:
        """The first of `name`, `name`-2, … that has not ended well and is not going on: a job may begin several runs
        one after the other."""
        self._is_of_job = True
        entries = {entry.run_id: entry for _, entry in self._entries()}
        for number in range(1, _MOST_IDS):
            run_id = name if number == 1 else f"{name}-{number}"
            entry = entries.get(run_id)
            if (self._place / (run_id + _DONE)).exists() or (entry is not None and _is_alive(entry)):
                continue
            return run_id, entry is not None or is_restart
        return naming.new_id(), False

    def _entries(self) -> list[tuple[Path, Entry]]:
        found = []
        with contextlib.suppress(OSError):
            for path in self._place.iterdir():
                if path.suffix == _OPEN and not path.name.startswith("."):
                    with contextlib.suppress(OSError, msgspec.MsgspecError):
                        found.append((path, msgspec.json.decode(places.read_private(path), type=Entry)))
        return [(path, entry) for path, entry in found if not naming.id_error(entry.run_id)]

    def _claim(self, path: Path) -> bool:
        """Whether this process is the one that took it."""
        mine = path.with_name(f".{path.name}.{os.getpid()}.taken")
        try:
            path.rename(mine)
            mine.unlink()
        except OSError:
            return False
        return True


def _is_alive(entry: Entry) -> bool:
    """Whether the process that began it is still there, as far as this machine can tell."""
    if entry.host != os.uname().nodename or entry.pid_namespace != files.pid_namespace():
        return False
    if entry.start_ticks:
        return files.start_ticks(entry.pid, entry.start_ticks) == entry.start_ticks
    try:
        os.kill(entry.pid, 0)
    except OSError:
        return False
    return True

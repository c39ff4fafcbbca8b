"""The directories of a run and of this process's spools. What cannot be written is replaced, and said aloud."""

import os
import time
from pathlib import Path
from typing import Final

from trackd_proto.layout import Instance
from trackd_proto.local import places
from trackd_proto.settings import Settings

from trackd import messages

RUNS: Final = "trackd-runs"


def make_run_dir(settings: Settings, run_id: str, start_us: int) -> Path:
    """A new ``trackd-runs/run-<time>-<id>/`` with `files/` in it; returns the former, absolute."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(start_us / 1e6))
    name = f"run-{stamp}-{run_id}"
    chosen = settings.dir or settings.home
    try:
        return _make(_base(settings) / RUNS, name)
    except OSError as error:  # not writable, or the working directory was deleted
        try:
            made = _make(_temporary() / f"{RUNS}-{os.geteuid()}", name)
        except OSError as second:
            messages.warn_once(
                f"cannot write to {chosen or 'the working directory'} ({error}), nor to {_temporary()} ({second}): the "
                "run has no directory, its files are not kept; choose a place with init(dir=...) or TRACKD_DIR"
            )
            return _temporary() / f"{RUNS}-{os.geteuid()}" / name
        messages.warn_once(
            f"cannot write to {chosen or 'the working directory'} ({error}): files of the run go to {made}; "
            "choose a place with init(dir=...) or TRACKD_DIR"
        )
        return made


def run_base(settings: Settings) -> Path:
    """The directory in which ``trackd-runs/`` is made if it can be; "." if the working directory is gone."""
    try:
        return _base(settings)
    except OSError:
        return Path()


def _base(settings: Settings) -> Path:
    chosen = settings.dir or settings.home
    return Path(chosen).expanduser().absolute() if chosen else Path.cwd()


def make_temporary() -> str:
    """A new directory in the temporary directory."""
    import tempfile  # noqa: PLC0415 - 5 ms that few runs need

    return tempfile.mkdtemp(prefix="trackd-")


def _temporary() -> Path:
    import tempfile  # noqa: PLC0415 - as above

    return Path(tempfile.gettempdir())


def open_instance(home: Path) -> Instance | None:
    """The private instance directory of this machine, for spools; in the temporary directory if need be.

    None if there is no place at all. Not in memory (/dev/shm): what lies there would not outlive the machine's restart,
    and be paid for with the training's memory.
    """
    try:
        return _open_instance(home)
    except OSError as error:
        first = error
    spare = _temporary() / f"trackd-home-{os.geteuid()}"
    try:
        opened = _open_instance(spare)
    except OSError as error:
        messages.warn_once(
            f"NOTHING OF THIS RUN IS KEPT: cannot keep data in {home} ({first}), nor in {spare} ({error}); free some "
            "space, or set TRACKD_HOME to a directory that you can write to"
        )
        return None
    messages.warn_once(
        f"cannot keep data in {home} ({first}): it is kept in {spare}; set TRACKD_HOME to a directory of your own"
    )
    return opened


def _open_instance(home: Path) -> Instance:
    instance = places.instance(home)
    places.prepare(instance)
    places.private_directory(instance.spool)
    if not os.access(instance.spool, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write to {instance.spool}")
    return instance


def _make(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        path = parent / (f"{name}-{number}" if number else name)
        try:
            path.mkdir()
        except FileExistsError:
            continue
        (path / "files").mkdir()
        return path
    raise OSError(f"{parent} holds a thousand runs named {name}")

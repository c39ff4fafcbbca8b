"""The processes that belong to one trackd home: found by what they were started with, ended by pid."""

import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil
from trackd_proto.layout import Published

_OURS = ("trackd.courier", "trackd/courier", "trackd_daemon", "bin/trackd")


def of_home(home: Path) -> list[psutil.Process]:
    """Every live process whose command line or environment names `home`, this one left out."""
    found = []
    needle = str(home)
    own = psutil.Process().pid
    for process in psutil.process_iter():
        if process.pid == own:
            continue
        try:
            words = [*process.cmdline(), *process.environ().values()]
            is_dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if not is_dead and any(needle in word for word in words):
            found.append(process)
    return found


def is_ours(process: psutil.Process) -> bool:
    """Whether it is a daemon or a courier (which may outlive the program that a test ran)."""
    try:
        return any(mark in word for word in process.cmdline() for mark in _OURS)
    except psutil.Error:
        return True


def published(home: Path) -> list[Published]:
    """What the daemons of `home` say about themselves, one per instance directory."""
    found = []
    for path in home.glob("*/daemon.json"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Published))
        except (OSError, msgspec.DecodeError):
            continue
    return found


def daemons(home: Path) -> list[psutil.Process]:
    """The running daemons of `home`: a pid counts only with the start time that was published with it."""
    running = []
    for entry in published(home):
        try:
            process = psutil.Process(entry.pid)
            if abs(process.create_time() - entry.start_time) < 2:
                running.append(process)
        except psutil.Error:
            continue
    return running


def end(processes: Iterable[psutil.Process], grace_s: float = 10.0) -> None:
    """SIGTERM, then after `grace_s` SIGKILL; returns when all are gone."""
    wanted = list(processes)
    for process in wanted:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(wanted, timeout=grace_s)
    for process in alive:
        _signal(process, signal.SIGCONT)
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        pass


def stop_home(home: Path) -> list[str]:
    """Ends everything of `home`. Returns the command lines of those that were neither daemon nor courier: leaks."""
    end(daemons(home))
    leaks: list[str] = []
    deadline = time.monotonic() + 20
    while left := of_home(home):
        # One without a command line has ended since it was found.
        leaks += [f"{p.pid}: {' '.join(words)}" for p in left if not is_ours(p) and (words := _words(p))]
        end(left, grace_s=3)
        if time.monotonic() > deadline:
            return leaks + [f"{p.pid}: cannot be ended" for p in of_home(home)]
    return leaks


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_until_alone(home: Path, timeout_s: float = 30.0) -> None:
    """Returns when nothing of `home` runs any more; fails after `timeout_s`."""
    left = of_home(home)
    _, alive = psutil.wait_procs(left, timeout=timeout_s)
    assert not alive, [" ".join(_words(p)) for p in alive]

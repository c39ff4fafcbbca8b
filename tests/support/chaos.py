"""Trainers that log while the daemon is killed again and again: what they print, how they end, what arrives.

The oracle is the number of log() calls that returned, told by each trainer at its end; row i holds x = i and y = i / 7,
so that a lost, doubled, moved or changed row is visible.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from support import kills, processes

TRAINER = """
import sys, time, trackd
seconds, run_file = float(sys.argv[1]), sys.argv[2]
run = trackd.init(project="chaos")
until, rows, slowest = time.monotonic() + seconds, 0, 0.0
while time.monotonic() < until:
    before = time.perf_counter()
    run.log({"x": rows, "y": rows / 7})
    slowest = max(slowest, time.perf_counter() - before)
    rows += 1
    time.sleep(0.003)
run.finish()
with open(run_file, "w") as file:
    file.write(f"{run.id} {rows} {slowest}")
"""

READER = """
import sys, trackd
rows = wrong = 0
for row in trackd.Api().run("chaos/" + sys.argv[1]).scan_history():
    wrong += row["x"] != rows or row["y"] != rows / 7
    rows += 1
print(rows, wrong)
"""


@dataclass(frozen=True)
class Trainer:
    """What became of one training program."""

    exit_code: int
    warnings: list[str]
    """Lines on stderr that are no ordinary news (links, the summary)."""
    logged: int
    held: int
    """Rows in the hub."""
    wrong: int
    """Of these, out of place or with another value."""
    slowest_s: float
    """The slowest log()."""
    took_s: float
    """Of the whole process: a hang is seen here."""


@dataclass(frozen=True)
class Outcome:
    """Of all trainers, and proof that the daemon was killed."""

    kills: int
    incarnations: int
    trainers: list[Trainer]
    drained_s: float
    """From the last trainer's end until the hub had every row."""


def storm(home: Path, seconds: float, interval_s: float = 5.0, trainers: int = 3, drain_s: float = 120.0) -> Outcome:
    """Train for `seconds` while every `interval_s` whatever daemon runs is killed. `home` is a fresh TRACKD_HOME."""
    environment = {k: v for k, v in os.environ.items() if k not in ("TRACKD_QUIET", "TRACKD_SILENT")}
    environment |= {"TRACKD_HOME": str(home)}
    running = []
    for number in range(trainers):
        error = (home / f"trainer-{number}.err").open("ab")
        command = [sys.executable, "-c", TRAINER, str(seconds), str(home / f"trainer-{number}.run")]
        running.append(subprocess.Popen(command, env=environment, cwd=home, stdout=error, stderr=error))
        error.close()
    began = time.monotonic()
    killed, ended = _kill_while(running, home, seconds, interval_s)
    finished = time.monotonic()
    # The last kill may have come when everything was in the daemon's log already: then the next trackd process of this
    # user starts it again, as is promised.
    subprocess.run([sys.executable, "-c", kills.NEXT], env=environment, cwd=home, check=True, timeout=60)
    found = [
        _outcome(home, number, process.returncode, ended[process.pid] - began, environment, finished + drain_s)
        for number, process in enumerate(running)
    ]
    epochs = [entry.epoch for entry in processes.published(home)]
    return Outcome(len(killed), max(epochs, default=0), found, time.monotonic() - finished)


def _kill_while(
    running: list["subprocess.Popen[bytes]"], home: Path, seconds: float, interval_s: float
) -> tuple[set[tuple[int, float]], dict[int, float]]:
    """Kills until every trainer has ended; the daemons that were killed, and when each trainer ended."""
    killed: set[tuple[int, float]] = set()
    ended: dict[int, float] = {}
    give_up = time.monotonic() + seconds + 60
    due = time.monotonic() + interval_s
    while len(ended) < len(running):
        for process in running:
            if process.pid not in ended and process.poll() is not None:
                ended[process.pid] = time.monotonic()
        if time.monotonic() > give_up:
            for process in running:
                process.kill()
        if time.monotonic() >= due:
            due += interval_s
            killed |= {_kill(daemon) for daemon in processes.daemons(home)}
        time.sleep(0.05)
    return killed, ended


def _kill(daemon: psutil.Process) -> tuple[int, float]:
    identity = (daemon.pid, daemon.create_time())
    daemon.kill()
    return identity


def _outcome(
    home: Path, number: int, exit_code: int, took_s: float, environment: dict[str, str], give_up: float
) -> Trainer:
    lines = (home / f"trainer-{number}.err").read_text().splitlines()
    warnings = [line for line in lines if _is_warning(line)]
    told = home / f"trainer-{number}.run"
    run_id, logged, slowest = told.read_text().split() if told.exists() else ("", "0", "inf")
    held = wrong = 0
    while run_id:
        held, wrong = _held(run_id, environment, home)
        if held >= int(logged) or time.monotonic() > give_up:
            break
        time.sleep(0.2)
    return Trainer(exit_code, warnings, int(logged), held, wrong, float(slowest), took_s)


def _is_warning(line: str) -> bool:
    """Everything but news that a healthy run prints too counts, tracebacks above all."""
    ordinary = ("trackd: run ", "trackd: project ", "trackd: to see it", "trackd: from your own machine")
    return not line.startswith(ordinary)


def _held(run_id: str, environment: dict[str, str], home: Path) -> tuple[int, int]:
    command = [sys.executable, "-c", READER, run_id]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        return 0, 0  # the run is not there yet
    rows, wrong = done.stdout.split()
    return int(rows), int(wrong)

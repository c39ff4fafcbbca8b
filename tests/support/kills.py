"""A training process that is killed right after its last log() returned, alone or with what works for it.

`python -m support.kills N` (scripts/torture-kill) repeats every scenario N times and prints a table.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import processes

ROWS = 2_000

TRAINER = """
import os, signal, sys, time
rows, run_file, delay_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
victims = [int(word) for word in os.environ.get("VICTIMS", "").split()]
import trackd
run = trackd.init(project="kills")
with open(run_file, "w") as file:
    file.write(run.id)
time.sleep(delay_s)
kill_courier = "courier" in sys.argv[4:]
if kill_courier:
    import pathlib
    while not victims:  # the courier of this process, once it runs
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"trackd.courier" in command and os.environ["TRACKD_HOME"].encode() in command:
                victims.append(int(entry.name))
if "daemon" in sys.argv[4:]:
    import glob, json
    for path in glob.glob(os.environ["TRACKD_HOME"] + "/*/daemon.json"):
        victims.append(json.load(open(path))["pid"])
for i in range(rows):
    run.log({"x": i, "y": i / 7})
for victim in [*victims, os.getpid()]:
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

READER = """
import sys, trackd
rows = list(trackd.Api().run(f"kills/{sys.argv[1]}").scan_history())
print(len(rows), [row["x"] for row in rows] == list(range(int(sys.argv[2]))), all(r["y"] == r["x"] / 7 for r in rows))
"""

NEXT = "import trackd; trackd.init(project='kills-next').finish()"


@dataclass(frozen=True)
class Outcome:
    """What the hub held in the end."""

    rows: int
    is_exact: bool
    """Every row once, in order, with the values that were logged."""
    took_s: float
    """From the kill to the last row."""


def kill(home: Path, victims: Sequence[str], *, delay_s: float = 0.0, wait_s: float = 60.0) -> Outcome:
    """Runs the trainer, which kills `victims` ("daemon", "courier") and itself; waits for its rows in the hub."""
    run_file = home / f"run-{random.getrandbits(40):x}"
    command = [sys.executable, "-c", TRAINER, str(ROWS), str(run_file), str(delay_s), *victims]
    environment = {**os.environ, "TRACKD_HOME": str(home), "TRACKD_QUIET": "1"}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    began = time.monotonic()
    if "courier" in victims:  # nobody is left who would: the next process of this user delivers
        subprocess.run([sys.executable, "-c", NEXT], env=environment, cwd=home, check=True, timeout=60)
    rows, is_exact = 0, False
    while not is_exact and time.monotonic() - began < wait_s:
        rows, is_exact = _read(run_file.read_text(), environment, home)
        if rows > ROWS:
            break
    return Outcome(rows, is_exact, time.monotonic() - began)


def _read(run_id: str, environment: dict[str, str], home: Path) -> tuple[int, bool]:
    command = [sys.executable, "-c", READER, run_id, str(ROWS)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return 0, False  # not there yet
    count, *checks = done.stdout.split()
    return int(count), checks == ["True", "True"]


SCENARIOS: dict[str, Sequence[str]] = {
    "trainer": (),
    "trainer and daemon": ("daemon",),
    "trainer and courier": ("courier",),
    "trainer, courier and daemon": ("courier", "daemon"),
}


def main() -> int:
    """A table of scenarios: repetitions, rows lost, rows doubled, and how long the last row took."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    bad = 0
    print(f"{'killed':32} {'times':>6} {'lost':>6} {'doubled':>8} {'wrong':>6} {'slowest (s)':>12}")
    for name, victims in SCENARIOS.items():
        with tempfile.TemporaryDirectory(prefix="trackd-kills-", ignore_cleanup_errors=True) as directory:
            home = Path(directory)
            try:
                outcomes = [kill(home, victims, delay_s=random.choice((0.0, 0.05, 0.3))) for _ in range(repetitions)]
            finally:
                processes.stop_home(home)
        lost = sum(max(0, ROWS - one.rows) for one in outcomes)
        doubled = sum(max(0, one.rows - ROWS) for one in outcomes)
        wrong = sum(not one.is_exact for one in outcomes)
        bad += wrong
        slowest = max(one.took_s for one in outcomes)
        print(f"{name:32} {repetitions:6} {lost:6} {doubled:8} {wrong:6} {slowest:12.1f}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Four threads that log beside one that never lets go of the GIL by itself, against four that take a lock.

Three kinds of calls are done in turns, a second each, in the same process, so that what else the machine does hits all
alike: log(); an empty lock, taken and released; a lock held for as long as a log() takes (`held`). Without a rest
between calls the interpreter takes the GIL away inside one of them every 5 ms, and how many calls that hits is a matter
of how long a call is: there only `held` is a fair measure. With a rest, as in a training loop, the wait is elsewhere.
"""

from __future__ import annotations

import array
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trackd_proto.local import places

from support import nonblocking, processes

THREADS = 4
TRAINER = """
import array, json, os, sys, threading, time, trackd
out, seconds, threads, rest_s = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
run = trackd.init(project="nonblocking", id="run")
clock, lock, turn_s = time.perf_counter_ns, threading.Lock(), 1.0
kinds, stop = ["log"], threading.Event()
took = {kind: [array.array("q") for _ in range(threads)] for kind in ("log", "lock", "held")}
counts = [0] * threads

def hog():
    n = 0
    while not stop.is_set():
        for _ in range(10000):
            n = (n * 1103515245 + 12345) % 2147483648

def work(number):
    row = {f"metric{n:02}": n / 7 for n in range(5)}
    while not stop.is_set():
        kind = kinds[0]
        note = took[kind][number].append
        if kind == "log":
            for _ in range(20):
                row["x"] = counts[number]
                before = clock()
                run.log(row)
                note(clock() - before)
                counts[number] += 1
                rest_s and time.sleep(rest_s)
        elif kind == "held":
            for _ in range(20):
                before = clock()
                with lock:
                    while clock() - before < 3000:
                        pass
                note(clock() - before)
                rest_s and time.sleep(rest_s)
        else:
            for _ in range(20):
                before = clock()
                with lock:
                    pass
                note(clock() - before)
                rest_s and time.sleep(rest_s)

everyone = [threading.Thread(target=hog), *(threading.Thread(target=work, args=(n,)) for n in range(threads))]
for one in everyone:
    one.start()
until = time.monotonic() + seconds
while time.monotonic() < until:
    time.sleep(turn_s)
    kinds[0] = {"log": "lock", "lock": "held", "held": "log"}[kinds[0]]
stop.set()
for one in everyone:
    one.join()
run.finish()
for kind, parts in took.items():
    with open(f"{out}/{kind}", "wb") as file:
        for part in parts:
            part.tofile(file)
with open(out + "/told", "w") as file:
    json.dump(sum(counts), file)
"""


@dataclass(frozen=True)
class Outcome:
    """Of both kinds of calls."""

    took_ns: dict[str, list[int]]
    """By "log", "lock" and "held", sorted."""
    logged: int
    held: int

    def percentile_us(self, kind: str, part: float) -> float:
        """Of one kind of calls."""
        numbers = self.took_ns[kind]
        return numbers[min(len(numbers) - 1, int(part * len(numbers)))] / 1000


def compare(home: Path, seconds: float, rest_s: float) -> Outcome:
    """In a fresh `home`, with the hub in the daemon; `rest_s` between two calls of a thread."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKD_", "GRPC_"))}
    command = [sys.executable, "-c", TRAINER, str(home), str(seconds), str(THREADS), str(rest_s)]
    environment = kept | {"TRACKD_HOME": str(home), "TRACKD_QUIET": "1"}
    try:
        subprocess.run(command, env=environment, cwd=home, check=True, timeout=seconds + 120, capture_output=True)
        took = {}
        for kind in ("log", "lock", "held"):
            numbers = array.array("q")
            numbers.frombytes((home / kind).read_bytes())
            took[kind] = sorted(numbers)
        logged = int(json.loads((home / "told").read_text()))
        rows = nonblocking.count(places.instance(home), logged)
    finally:
        processes.stop_home(home)
    return Outcome(took, logged, rows)

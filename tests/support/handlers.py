"""T23: signal handlers that log, flush and finish at a random moment of a program that logs, and finalizers that log.

Each interpreter runs one program with many runs, a trial each; what must be in the hub afterwards it says itself.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackd_proto.local import hub_client, instance, places

from support import processes
from support.serving import serving, wait_for

PROGRAM = """
import faulthandler, gc, json, random, signal, sys, time
import trackd
number, trials, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
faulthandler.dump_traceback_later(60 + 3 * trials, exit=True)

class Noisy:
    def __init__(self, write):
        self.me, self.write = self, write  # collected by the cyclic collector, wherever that runs
    def __del__(self):
        self.write()

for trial in range(trials):
    run = trackd.init(project="t23", id=f"{number}-{trial}")
    lane = run._lane
    facts = {"id": run.id, "main": 0, "handler": 0, "finalizer": 0, "inside": 0, "finished": 0, "slowest_s": 0.0}
    handlers = random.randint(1, 4)
    left = [handlers]

    def handler(*_):
        began = time.monotonic()
        left[0] -= 1
        facts["inside"] += lane._lock._is_owned()
        run.log({"handler": facts["handler"]})
        facts["handler"] += 1
        run.flush(timeout_s=5)
        if left[0] <= 0:
            run.finish()
            facts["finished"] += 1
        else:
            signal.setitimer(signal.ITIMER_REAL, random.random() ** 3 * 0.02 + 1e-6)
        facts["slowest_s"] = max(facts["slowest_s"], time.monotonic() - began)

    def finalized():
        if not run.is_finished and not facts["finished"]:
            run.log({"finalizer": facts["finalizer"]})
            facts["finalizer"] += 1

    signal.signal(signal.SIGALRM, handler)
    gc.collect()
    gc.set_threshold(random.choice((3, 50, 700)))
    row = {"main": 0, **{f"k{i}": i / 7 for i in range(random.choice((1, 30, 100)))}}  # most of the time inside log()
    signal.setitimer(signal.ITIMER_REAL, random.random() ** 3 * 0.05 + 1e-6)
    deadline = time.monotonic() + 30
    while not lane.refused and time.monotonic() < deadline:
        row["main"] = facts["main"]
        run.log(row)
        facts["main"] += 1
        if facts["main"] % 7 == 0:
            Noisy(finalized)
        if facts["main"] % 500 == 0:
            time.sleep(0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.set_threshold(700)
    nested = lane._nested
    facts["refused"] = lane.refused
    while nested is not None:
        facts["refused"] += nested.refused
        nested = nested._nested
    print(json.dumps(facts), flush=True)
"""


@dataclass
class Outcome:
    """Of one interpreter."""

    version: str
    trials: int = 0
    inside: int = 0
    """Handlers that interrupted log() itself."""
    handlers: int = 0
    finalizers: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Runs of which something was lost, doubled or never finished."""


@contextmanager
def hub() -> Iterator[Path]:
    """A home with a daemon, for interpreters without the hub's packages too."""
    home = Path(tempfile.mkdtemp(prefix="trackd-t23-"))
    before = dict(os.environ)
    os.environ |= {"TRACKD_HOME": str(home), "TRACKD_SILENT": "1", "TRACKD_QUIET": "1"}
    try:
        with serving(home):
            where = places.instance(home)
            wait_for(lambda: instance.is_listening(where), "the daemon", 120)
            yield home
    finally:
        processes.stop_home(home)
        os.environ.clear()
        os.environ.update(before)


def trial(python: Sequence[str], home: Path, trials: int, seed: int) -> Outcome:
    """One program of `trials` runs in the interpreter `python`, and what the hub has of them."""
    name = f"{random.getrandbits(24):06x}"
    done = subprocess.run(
        [*python, "-c", PROGRAM, name, str(trials), str(seed)], cwd=home, capture_output=True, text=True,
        timeout=120 + 4 * trials, check=False,
    )  # fmt: skip
    version = subprocess.run([python[0], "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = Outcome(version)
    for line in done.stdout.splitlines():
        facts = json.loads(line)
        found.trials += 1
        found.inside += facts["inside"]
        found.handlers += facts["handler"]
        found.finalizers += facts["finalizer"]
        found.slowest_s = max(found.slowest_s, facts["slowest_s"])
        if problem := _compare(facts):
            found.wrong.append(f"{facts['id']} (seed {seed}): {problem}")
    if done.returncode or found.trials < trials:
        found.wrong.append(f"ended with {done.returncode} after {found.trials} trials: {done.stderr[-3000:]}")
    return found


def _compare(facts: dict[str, Any]) -> str:
    """What is wrong with a run; "" for nothing."""
    import trackd

    wanted = sum(facts[kind] for kind in _KINDS) - facts["refused"]
    state, rows = "not in the hub", list[dict[str, Any]]()

    def is_here() -> bool:
        nonlocal state, rows
        with contextlib.suppress(hub_client.HubError):  # not there yet
            run = trackd.Api().run(f"t23/{facts['id']}")
            state, rows = run.state, list(run.scan_history(_KINDS))
        # Rows of a handler stand at the step of the call that it interrupted, and are read as one with it.
        values = sum(row.get(kind) is not None for row in rows for kind in _KINDS)
        return state == "finished" and values >= wanted

    with contextlib.suppress(AssertionError):
        wait_for(is_here, "all rows", 30)
    seen = {kind: [int(row[kind]) for row in rows if row.get(kind) is not None] for kind in _KINDS}
    doubled = [kind for kind in _KINDS if sorted(seen[kind]) != list(range(len(seen[kind])))]
    lost = wanted - sum(map(len, seen.values()))
    if not facts["finished"]:
        return "its handler never finished it"
    if state != "finished" or doubled or lost:
        return f"state {state}, out of order or doubled: {doubled}, lost {lost} ({facts})"
    return ""


_KINDS = ("main", "handler", "finalizer")


def own_python() -> list[str]:
    """This interpreter."""
    return [sys.executable]

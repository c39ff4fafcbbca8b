"""T24: what a trainer, its shell and its container see of courier and daemon, which should be nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from support import processes

CHILDREN = """
import json, os, signal, sys
seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
import trackd
run = trackd.init(project="guest", mode="offline")
for i in range(2000):
    run.log({"x": i})
try:
    os.wait()
    waited = "a child"
except ChildProcessError:
    waited = "ChildProcessError"
unblocked = signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
pid = os.fork()
if pid == 0:
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
run.finish()
print(json.dumps({"seen": len(seen), "waited": waited, "own_child": status, "unblocked": unblocked}))
"""
ONLY_ITS_OWN = {"seen": 1, "waited": "ChildProcessError", "own_child": 7, "unblocked": True}
PIPELINE = """
import trackd
run = trackd.init(project="pipe")
for i in range(100):
    run.log({"x": i})
run.finish()
print("trained", flush=True)
"""
PID_ONE = """
import os, sys, trackd
assert os.getpid() == 1
run = trackd.init(project="guest", id=sys.argv[1])
for i in range(2000):
    run.log({"x": i})
run.finish()
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def children(directory: Path) -> dict[str, Any]:
    """What a trainer saw of children and SIGCHLD; ONLY_ITS_OWN is right."""
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], cwd=directory, capture_output=True, text=True, timeout=60, check=True
    )
    return dict(json.loads(done.stdout))


def pipeline(home: Path, directory: Path) -> float:
    """Seconds from "trained" to the end of `python train.py 2>&1 | tee log`."""
    (directory / "train.py").write_text(PIPELINE)
    command = f"{sys.executable} train.py 2>&1 | tee log"
    with subprocess.Popen(command, shell=True, cwd=directory, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout
        lines = {line: time.monotonic() for line in shell.stdout}
        ended_s = time.monotonic()
        assert shell.wait(60) == 0
    left = [process for process in processes.of_home(home) if processes.is_ours(process)]
    assert left, "nothing was left that could have held it open"
    return ended_s - lines["trained\n"]


def has_autogroups() -> bool:
    """Whether the kernel shares the processors out by terminal session first."""
    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return switch.exists() and switch.read_text() == "1\n"


def priorities(home: Path, directory: Path) -> list[str]:
    """What courier and daemon of a live trainer have that they should not have."""
    code = PIPELINE + "import sys; sys.stdin.readline()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdin and trainer.stdout
        said = trainer.stdout.readline()
        while said and said != b"trained\n":
            said = trainer.stdout.readline()
        guests = [process for process in processes.of_home(home) if process.pid != trainer.pid]
        wrong = [] if len(guests) >= 2 else [f"courier and daemon were expected, not {guests}"]
        for guest in guests:
            wrong += [f"{guest}: {what}" for what in _too_much(guest, trainer.pid)]
        trainer.communicate(b"\n", timeout=30)
    return wrong


def _too_much(guest: psutil.Process, trainer: int) -> list[str]:
    wrong = []
    if guest.nice() < os.nice(0) + 5:
        wrong.append(f"niceness {guest.nice()}")
    if os.sched_getscheduler(guest.pid) != os.SCHED_BATCH:
        wrong.append("not a batch process")
    if has_autogroups():
        # The trainer's is empty when its session is the machine's first one.
        group, trainers = (Path(f"/proc/{pid}/autogroup").read_text() for pid in (guest.pid, trainer))
        if not group.endswith(" nice 5\n") or group.split()[:1] == trainers.split()[:1]:
            wrong.append(f"autogroup {group!r} beside the trainer's {trainers!r}")
    held = {path.readlink() for path in Path(f"/proc/{guest.pid}/fd").iterdir()}
    inherited = {Path(f"/proc/{trainer}/fd/{n}").readlink() for n in (0, 1, 2)} - {Path("/dev/null")}
    wrong += [f"holds the trainer's {name}" for name in sorted(held & inherited)]
    ignored = int(_status(guest.pid)["SigIgn"], 16) | int(_status(guest.pid)["SigCgt"], 16)
    if not ignored & (1 << (signal.SIGINT - 1)):
        wrong.append("a Ctrl-C ends it")
    if os.getsid(guest.pid) == os.getsid(trainer):
        wrong.append("in the trainer's terminal session")
    return wrong


def _status(pid: int) -> dict[str, str]:
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def can_unshare() -> bool:
    """Whether a trainer can be PID 1 here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def pid_one(directory: Path, run_id: str) -> None:
    """A trainer that is PID 1, as in a container. When it ends the kernel kills courier and daemon with it."""
    subprocess.run([*UNSHARE, sys.executable, "-c", PID_ONE, run_id], cwd=directory, timeout=60, check=True)


def send_rest(timeout_s: float = 60.0) -> None:
    """`trackd flush` until nothing is left to be sent."""
    deadline = time.monotonic() + timeout_s
    flush = [str(Path(sys.executable).parent / "trackd"), "flush", "--all", "--wait", "30"]
    while subprocess.run(flush, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, "what the container left was not sent"

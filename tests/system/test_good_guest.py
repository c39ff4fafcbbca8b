"""T24: the courier is nobody's child, and a trainer that is PID 1 of a container loses nothing."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
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

PID_ONE = """
import os, trackd
assert os.getpid() == 1
run = trackd.init(project="guest")
for i in range(2000):
    run.log({"x": i})
run.finish()
"""


def test_wait_and_sigchld_see_only_the_users_own_children(trackd_home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    facts = json.loads(done.stdout)
    assert facts == {"seen": 1, "waited": "ChildProcessError", "own_child": 7, "unblocked": True}


PIPELINE = """
import trackd
run = trackd.init(project="pipe")
for i in range(100):
    run.log({"x": i})
run.finish()
print("trained")
"""


def test_a_pipeline_ends_with_the_trainer(trackd_home: Path, tmp_path: Path) -> None:
    """`python train.py 2>&1 | tee log`: courier and daemon live on and hold neither end of the pipe."""
    (tmp_path / "train.py").write_text(PIPELINE)
    command = f"{sys.executable} train.py 2>&1 | tee log"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("trained\n")
    left = [process for process in processes.of_home(trackd_home) if processes.is_ours(process)]
    assert left, "nothing was left that could have held it open"


def has_autogroups() -> bool:
    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return switch.exists() and switch.read_text() == "1\n"


def test_courier_and_daemon_leave_the_trainer_its_processor(trackd_home: Path, tmp_path: Path) -> None:
    """Lower priority, also where the kernel shares the processors out by terminal session first (autogroups)."""
    code = PIPELINE + "import sys; sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as trainer:
        assert trainer.stdin and trainer.stdout and trainer.stdout.readline() == b"trained\n"
        guests = [process for process in processes.of_home(trackd_home) if process.pid != trainer.pid]
        assert len(guests) == 2, guests
        for guest in guests:
            assert guest.nice() >= os.nice(0) + 5
            assert os.sched_getscheduler(guest.pid) == os.SCHED_BATCH
            if has_autogroups():
                # The trainer's is empty when its session is the machine's first one.
                group = Path(f"/proc/{guest.pid}/autogroup").read_text()
                assert group.endswith(" nice 5\n")
                assert group.split()[:1] != Path(f"/proc/{trainer.pid}/autogroup").read_text().split()[:1]
        trainer.communicate(b"\n", timeout=30)


def can_unshare() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs user and PID namespaces")
def test_a_trainer_that_is_pid_one_loses_nothing_on_a_clean_exit(trackd_home: Path, tmp_path: Path) -> None:
    """When PID 1 ends the kernel kills courier and daemon with it: what is then in the spool must still arrive."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    subprocess.run([*unshare, sys.executable, "-c", PID_ONE], cwd=tmp_path, timeout=60, check=True)
    deadline = time.monotonic() + 60
    flush = [str(Path(sys.executable).parent / "trackd"), "flush", "--all", "--wait", "30"]
    while subprocess.run(flush, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, "what the container left was not sent"
    import trackd

    (run,) = trackd.Api().runs("guest")
    assert [row["x"] for row in run.scan_history()] == list(range(2000))

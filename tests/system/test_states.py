"""However a training process ends, its run says so, with the reason, and no row is missing: real processes and signals.

One daemon serves all of them. Each trainer stays in its loop until the signal; its wait status proves what ended it.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
from support import processes, scripts
from trackd_daemon.cli import hub
from trackd_proto.local.hub_client import NotFoundError, run_path

ROWS = 200
TRAINER = """
import os, signal, sys, time
import trackd
run = trackd.init(project="states", id=sys.argv[1])
for i in range(int(sys.argv[2])):
    run.log({"x": i})
assert run.flush(durable=True, timeout_s=30)  # the courier is there, and has looked at us
exec(sys.argv[3])
"""
WAITS = "print('ready', flush=True)\nwhile True: time.sleep(60)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("home")
    yield directory
    leaks = processes.stop_home(directory)
    assert not leaks, leaks


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TRACKD_HOME": str(home), "TRACKD_QUIET": "1", **more}


def start(home: Path, run: str, then: str = WAITS, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, run, str(ROWS), then], env=environment(home, **more), cwd=home, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=_no_core,
    )  # fmt: skip


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def ready(trainer: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert trainer.stdout is not None
    with trainer.stdout as output:
        assert output.readline() == "ready\n"
    return trainer


def left_with(trainer: subprocess.Popen[str]) -> int:
    trainer.communicate(timeout=60)
    return trainer.returncode


def ended(home: Path, run: str, *, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """The run as the hub answers, once it is in this state and every row is there."""
    deadline = time.monotonic() + timeout_s
    with mock.patch.dict(os.environ, environment(home)), hub.connected() as client:
        while True:
            facts: dict[str, Any] = {}
            with contextlib.suppress(NotFoundError):
                facts = client.get(run_path("states", run))
            if facts and facts["state"] == state and facts["rows"] == ROWS:
                return facts
            assert time.monotonic() < deadline, {k: facts.get(k) for k in ("state", "cause", "rows")}
            time.sleep(0.05)


# Linux 6.15 keeps the exit code for us; before, only a parent that is slow to reap leaves us the time to see it.
kernel_tells = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)


@pytest.mark.parametrize(
    ("number", "state", "cause", "more"),
    [
        (signal.SIGTERM, "killed", "SIGTERM", {}),
        (signal.SIGINT, "killed", "KeyboardInterrupt", {}),
        (signal.SIGHUP, "killed", "SIGHUP", {}),
        (signal.SIGTERM, "preempted", "SIGTERM in SLURM job 7", {"SLURM_JOB_ID": "7"}),
        (signal.SIGUSR1, "preempted", "SIGUSR1 in SLURM job 7", {"SLURM_JOB_ID": "7"}),
        pytest.param(signal.SIGKILL, "killed", "SIGKILL", {}, marks=pytest.mark.skipif(not kernel_tells, reason="")),
        pytest.param(signal.SIGSEGV, "crashed", "SIGSEGV", {}, marks=pytest.mark.skipif(not kernel_tells, reason="")),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else None,
)
def test_a_run_names_the_signal_that_ended_it(
    home: Path, number: signal.Signals, state: str, cause: str, more: dict[str, str]
) -> None:
    run = f"{number.name.lower()}-{state}"
    trainer = ready(start(home, run, **more))
    trainer.send_signal(number)
    assert trainer.wait(30) == -number
    facts = ended(home, run, state=state)
    assert facts["cause"].startswith(cause) and facts["exit_code"] == 128 + number


def test_a_failed_run_keeps_type_message_and_traceback(home: Path) -> None:
    trainer = start(home, "failed", "def step(): raise ValueError('loss is NaN')\nstep()")
    assert left_with(trainer) == 1
    facts = ended(home, "failed", state="failed")
    assert (facts["exit_code"], facts["cause"]) == (1, "ValueError: loss is NaN")
    assert "in step" in facts["traceback"] and facts["traceback"].endswith("ValueError: loss is NaN")
    shown = json.loads(scripts.trackd("show", "states/failed", "--json", cwd=home, **environment(home)))
    assert {k: shown[k] for k in ("state", "cause", "traceback")} == {
        k: facts[k] for k in ("state", "cause", "traceback")
    }
    (listed,) = json.loads(
        scripts.trackd("ls", "states", "-w", "state = failed", "--json", cwd=home, **environment(home))
    )
    assert (listed["run_id"], listed["cause"], listed["traceback"]) == ("failed", facts["cause"], None)


@pytest.mark.skipif(not kernel_tells, reason="the kernel does not tell the exit code")
@pytest.mark.parametrize(
    ("name", "ending", "code", "state"),
    [
        ("bare", "raise SystemExit(3)", 3, "failed"),
        ("os-exit", "os._exit(4)", 4, "failed"),
        ("caught", "try:\n    sys.exit(5)\nexcept SystemExit:\n    pass", 0, "finished"),
    ],
)
def test_an_exit_code_that_python_tells_nobody(home: Path, name: str, ending: str, code: int, state: str) -> None:
    trainer = start(home, name, ending)
    assert left_with(trainer) == code
    facts = ended(home, name, state=state)
    assert facts["exit_code"] == code


def test_a_job_whose_every_process_is_told_to_end_leaves_nothing_behind(home: Path) -> None:
    """As `scancel` or a container's stop do it: trainer, courier and daemon get SIGTERM at once."""
    trainer = ready(start(home, "cancelled"))
    everybody = processes.of_home(home)
    kinds = [" ".join(p.cmdline()) for p in everybody]
    assert any("courier" in kind for kind in kinds) and processes.daemons(home), kinds
    for process in everybody:
        process.send_signal(signal.SIGTERM)
    assert trainer.wait(30) == -signal.SIGTERM
    couriers = [p for p, kind in zip(everybody, kinds, strict=True) if "courier" in kind]
    _, alive = psutil.wait_procs(couriers, timeout=30)
    assert not alive, "a courier outlived its job"
    # Nothing that looks comes before this: the courier alone has seen to it that everything arrived.
    facts = ended(home, "cancelled", state="killed")
    assert facts["cause"] == "SIGTERM"


def test_an_interrupt_of_the_job_does_not_end_the_daemon(home: Path) -> None:
    trainer = ready(start(home, "interrupted"))
    (daemon,) = processes.daemons(home)
    for process in (daemon, trainer):
        process.send_signal(signal.SIGINT)
    assert trainer.wait(30) == -signal.SIGINT
    ended(home, "interrupted", state="killed")
    assert processes.daemons(home) == [daemon]


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 400 MiB, where this machine lets us make one."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, inside in lines:
        parent = Path("/sys/fs/cgroup") / ("memory" if controllers else "") / inside.lstrip("/")
        if controllers not in ("", "memory"):
            continue
        group, limit = parent / f"trackd-test-{os.getpid()}", "memory.limit_in_bytes" if controllers else "memory.max"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text("400M")
        except OSError:
            group.rmdir()
            continue
        yield group
        deadline = time.monotonic() + 20
        while (group / "cgroup.procs").read_text():  # daemon and courier, which the test ends
            assert time.monotonic() < deadline, "the cgroup is still in use"
            time.sleep(0.05)
        group.rmdir()
        return
    pytest.skip("needs the right to make memory cgroups")


OOM = """
import os, sys
with open(sys.argv[3] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
sys.argv[3] = "kept = []\\nwhile True: kept.append(bytearray(10_000_000))"
""" + TRAINER  # fmt: skip


@pytest.mark.skipif(not kernel_tells, reason="the kernel does not tell what ended a process")
def test_the_kernel_out_of_memory(small_cgroup: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OOM, "greedy", str(ROWS), str(small_cgroup)]
    trainer = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, timeout=60, check=False)
    try:
        assert trainer.returncode == -signal.SIGKILL
        facts = ended(tmp_path, "greedy", state="killed")
        assert facts["cause"].startswith("out of memory: the kernel killed")
    finally:
        leaks = processes.stop_home(tmp_path)
    assert not leaks, leaks


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs user and PID namespaces")
def test_a_container_that_is_stopped(tmp_path: Path) -> None:
    """PID 1 gets SIGTERM, which it survives as every PID 1 does, then SIGKILL takes the courier and the daemon too."""
    home = tmp_path / "home"
    home.mkdir()
    command = [*UNSHARE, sys.executable, "-c", TRAINER, "stopped", str(ROWS), WAITS]
    outside = subprocess.Popen(command, env=environment(home), cwd=home, stdout=subprocess.PIPE, text=True)
    try:
        ready(outside)
        (trainer,) = psutil.Process(outside.pid).children()
        trainer.terminate()
        deadline = time.monotonic() + 20
        while _caught(trainer.pid) & (1 << (signal.SIGTERM - 1)):  # the handler gives the signal back when it is done
            assert time.monotonic() < deadline, "SIGTERM was not handled"
            time.sleep(0.01)
        trainer.kill()
        assert outside.wait(30) != 0
        scripts.trackd("flush", "--all", "--wait", "30", cwd=home, **environment(home))
        facts = ended(home, "stopped", state="killed")
        assert facts["cause"] == "SIGTERM"
    finally:
        outside.kill()
        leaks = processes.stop_home(home)
    assert not leaks, leaks


def _caught(pid: int) -> int:
    """Bit mask of the signals that the process has handlers for."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)

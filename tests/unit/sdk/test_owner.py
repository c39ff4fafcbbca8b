"""How a process that is not our child has ended, from what the kernel leaves to see."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trackd import spool as files
from trackd.courier.memory import OomWatch
from trackd.courier.owner import Owner, describe

from .spooling import no_more_files

ALIVE = (Path("/nonexistent"), 0)
SLEEPS = [sys.executable, "-S", "-c", "print(flush=True)\nimport time\ntime.sleep(60)"]


@pytest.mark.parametrize(
    ("status", "state", "code", "cause"),
    [
        (0, "finished", 0, "exited without finish()"),
        (3 << 8, "failed", 3, "exited with code 3 without finish()"),
        (signal.SIGTERM, "killed", 143, "SIGTERM"),
        (signal.SIGXCPU, "killed", 152, "SIGXCPU"),
        (signal.SIGKILL, "killed", 137, "SIGKILL (the out-of-memory killer, a scheduler or a person)"),
        (signal.SIGSEGV | 0x80, "crashed", 139, "SIGSEGV"),
    ],
)
def test_wait_statuses_in_words(status: int, state: str, code: int, cause: str) -> None:
    assert describe(status) == (state, code, cause)


def test_what_ended_a_process_is_seen_before_its_parent_reaps_it() -> None:
    """As every kernel does; afterwards only Linux 6.15 tells."""
    with subprocess.Popen(SLEEPS, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        owner = Owner(child.pid, files.start_ticks(child.pid), files.pid_namespace(), ALIVE)
        assert not owner.is_dead()
        os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not owner.is_dead():
            assert time.monotonic() < deadline
        assert owner.ending().state == "killed" and owner.exit_code() is None
    owner.close()


def test_a_process_that_was_gone_before_we_looked_is_lost_contact() -> None:
    with subprocess.Popen(["true"]) as child:
        ticks = files.start_ticks(child.pid)
        child.wait()
    owner = Owner(child.pid, ticks or 1, files.pid_namespace(), ALIVE)
    assert owner.is_dead()
    assert owner.ending() == ("lost contact", None, "the process is gone; how it ended is not known")
    assert owner.exit_code() is None


def _no_pidfd(_pid: int) -> int:
    raise OSError(errno.ENOSYS, "an old kernel")


@pytest.mark.parametrize("has_pidfds", [True, False])
@pytest.mark.parametrize("is_early", [True, False])
def test_a_process_that_cannot_be_looked_up_at_the_moment_is_alive(
    monkeypatch: pytest.MonkeyPatch, has_pidfds: bool, is_early: bool
) -> None:
    """Called dead it would be for ever, and its files would be removed under it."""
    if not has_pidfds:
        monkeypatch.setattr(os, "pidfd_open", _no_pidfd)
    with subprocess.Popen(SLEEPS, stdout=subprocess.PIPE) as child:
        ticks, namespace = files.start_ticks(child.pid), files.pid_namespace()
        if is_early:
            with no_more_files():
                owner = Owner(child.pid, ticks, namespace, ALIVE)
                assert not owner.is_dead()
        else:
            owner = Owner(child.pid, ticks, namespace, ALIVE)
            with no_more_files():
                assert not owner.is_dead()
        assert not owner.is_dead()
        assert (owner._pidfd is not None) is has_pidfds, "held as soon as it can be"
        child.kill()
        child.wait()
        with no_more_files():
            assert owner.is_dead() is has_pidfds, "without a pidfd nobody can say"
        assert owner.is_dead()
    owner.close()


def test_who_may_be_another_process_of_the_same_number_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pidfd would say that it lives, for as long as the other one does."""
    with monkeypatch.context() as patched:
        patched.setattr(files, "start_ticks", lambda _pid, unsure=0: unsure)
        owner = Owner(os.getpid(), 1, files.pid_namespace(), ALIVE)
        assert not owner.is_dead()
    assert owner.is_dead()


@pytest.mark.parametrize(
    ("code", "ticks"),
    [(errno.ENOENT, 0), (errno.ESRCH, 0), (errno.EMFILE, -1), (errno.ENFILE, -1), (errno.EACCES, -1), (errno.EIO, -1)],
)
def test_only_proc_itself_says_that_a_process_is_gone(monkeypatch: pytest.MonkeyPatch, code: int, ticks: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "open", fail, raising=False)
    assert files.start_ticks(1, -1) == ticks
    assert files.start_ticks(1) == 0


GROUPS = {
    "version 2": ("0::/job\n", "job/memory.events", "low 0\noom 1\noom_kill {}\noom_group_kill 0\n"),
    "version 2, hybrid": ("3:cpu:/\n0::/job\n", "unified/job/memory.events", "oom_kill {}\n"),
    "version 1": ("4:memory:/job\n0::/\n", "memory/job/memory.oom_control", "oom_kill_disable 0\noom_kill {}\n"),
    "version 1 in a container": ("4:memory:/docker/1\n", "memory/memory.oom_control", "under_oom 0\noom_kill {}\n"),
}


def machine(place: Path, membership: str) -> tuple[Path, Path]:
    proc, cgroups = place / "proc", place / "cgroup"
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(membership)
    (proc / "vmstat").write_text("pgmajfault 9\noom_kill 0\n")
    return proc, cgroups


@pytest.mark.parametrize("kind", GROUPS)
def test_a_kill_for_memory_is_told_from_others_by_the_cgroups_counter(tmp_path: Path, kind: str) -> None:
    membership, name, text = GROUPS[kind]
    proc, cgroups = machine(tmp_path, membership)
    (cgroups / name).parent.mkdir(parents=True)
    (cgroups / name).write_text(text.format(4))
    watch = OomWatch(7, cgroups, proc)
    (proc / "vmstat").write_text("oom_kill 5\n")  # somebody else's
    assert watch.verdict() is None
    (cgroups / name).write_text(text.format(5))
    assert watch.verdict() == "the kernel killed a process of this job's memory cgroup"


def test_outside_of_memory_cgroups_the_machines_counter_makes_it_probable(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "0::/\n")
    watch = OomWatch(7, cgroups, proc)
    assert watch.verdict() is None
    (proc / "vmstat").write_text("oom_kill 1\n")
    assert (watch.verdict() or "").startswith("probably")


def test_a_machine_that_tells_nothing_is_no_evidence(tmp_path: Path) -> None:
    assert OomWatch(7, tmp_path, tmp_path).verdict() is None

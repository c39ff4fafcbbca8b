"""One thread that logs while something behind it stands still: how long each log() took, and what arrived in the end.

Times are taken by the trainer itself into memory set aside before; only calls between `since_ns` and `until_ns` of the
fault count. Each fault is proved by the words of the spool's head: what the trainer published has left a watermark
behind. The oracle of rows: row i holds x = i.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from trackd_proto import spool
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, HubError

from support import processes, serving

PROJECT = "nonblocking"
TRAINER = """
import array, json, os, sys, time, trackd
out, rate = sys.argv[1], int(sys.argv[2])
run = trackd.init(project="nonblocking", id="run")
clock, room = time.perf_counter_ns, 4_000_000
began, took = array.array("q", bytes(8 * room)), array.array("q", bytes(8 * room))
row = {f"metric{n:02}": n / 7 for n in range(20)}
rows, due, is_ready = 0, time.monotonic(), False
while not os.path.exists(out + "/stop") and rows < room - 100:
    for _ in range(max(1, rate // 200)):
        row["x"] = rows
        before = clock()
        run.log(row)
        took[rows] = clock() - before
        began[rows] = before
        rows += 1
    if not is_ready and rows > rate // 2:
        is_ready = True
        open(out + "/ready", "w").close()
    due = max(due + 1 / 200, time.monotonic() - 0.1)
    time.sleep(max(0.0, due - time.monotonic()))
with open(out + "/times", "wb") as file:
    began[:rows].tofile(file)
    took[:rows].tofile(file)
run.finish()
with open(out + "/told", "w") as file:
    json.dump(rows, file)
"""
SLOW = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int slowly(long call, int fd) {
    const char *delay = getenv("SLOW_US"), *log = getenv("SLOW_LOG");
    if (delay && access(getenv("SLOW_IF"), F_OK) == 0) {
        usleep(atoi(delay));
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (out >= 0) { if (write(out, ".", 1) < 0) {} close(out); }
    }
    return syscall(call, fd);
}
int fdatasync(int fd) { return slowly(SYS_fdatasync, fd); }
int fsync(int fd) { return slowly(SYS_fsync, fd); }
"""


@dataclass(frozen=True)
class Outcome:
    """Of one phase."""

    fault: str
    took_ns: list[int]
    """Of the calls during the fault, sorted."""
    proof: str
    """What showed that the fault was there; empty: it was not."""
    logged: int
    held: int
    lost: int
    """Declared."""
    wrong: int
    """Rows out of order, doubled or of another value."""

    def percentile_us(self, part: float) -> float:
        """Of the calls during the fault."""
        return self.took_ns[min(len(self.took_ns) - 1, int(part * len(self.took_ns)))] / 1000

    @property
    def is_exact(self) -> bool:
        """Every row is in the hub once or declared lost, and only a full spool loses any (EXIT perhaps too)."""
        others = self.held + self.lost - self.logged
        return (
            self.logged > 0
            and not self.wrong
            and (others in (0, 1) if self.fault == "full" else others == self.lost == 0)
        )


class Site:
    """A trainer, its courier, an agent, a hub; each can be made to stand still."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home, self.hub_home = directory / "agent", directory / "hub"
        for one in (self.home, self.hub_home):
            one.mkdir(mode=0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKD_", "GRPC_"))}
        self.environment = kept | {"TRACKD_HOME": str(self.home), "TRACKD_QUIET": "1"}
        self._address = f"127.0.0.1:{serving.free_port()}"
        self._hub: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def start_hub(self) -> None:
        """The hub, in a process of its own."""
        there = places.instance(self.hub_home)
        instance.load_cookie(there)
        self._hub = self._serve(self.hub_home, "--role", "hub", "--listen", self._address)
        self.environment |= {"TRACKD_UPSTREAM": self._address, "TRACKD_UPSTREAM_COOKIE": str(there.cookie)}

    def stop_hub(self) -> None:
        """Until it is gone."""
        if self._hub is not None:
            self._hub.terminate()
            self._hub.wait(60)

    def start_agent(self, **environ: str) -> None:
        """The agent in the foreground, so that it can have an environment of its own."""
        self._serve(self.home, "--role", "agent", **environ)
        serving.wait_for(lambda: serving.ready(places.instance(self.home)), "the agent listens", 300)

    def _serve(self, home: Path, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        command = "from trackd_daemon.cli import main; main()"
        with (self.directory / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", command, "serve", *arguments], stdout=log, stderr=log,
                env=self.environment | {"TRACKD_HOME": str(home)} | environ,
            )  # fmt: skip
        self._children.append(process)
        return process

    def train(self, rate: int, **environ: str) -> subprocess.Popen[bytes]:
        """The trainer; returns when it has been logging for half a second and its records arrive."""
        with (self.directory / "trainer.log").open("ab") as log:
            trainer = subprocess.Popen(
                [sys.executable, "-c", TRAINER, str(self.directory), str(rate)], cwd=self.directory,
                env=self.environment | environ, stdout=log, stderr=log,
            )  # fmt: skip
        self._children.append(trainer)
        serving.wait_for((self.directory / "ready").exists, "the trainer logs", 60)
        serving.wait_for(lambda: self.word(spool.COMMITTED) > 0, "the first records are in the hub", 60)
        return trainer

    def word(self, index: int) -> int:
        """One word of the head of the trainer's lane; 0: there is none."""
        heads = sorted(places.instance(self.home).spool.glob("*/*.head"))
        for path in heads[:1]:
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if len(data) == spool.HEAD_BYTES:
                    return memoryview(data).cast("Q")[index]
        return 0

    def agent(self) -> psutil.Process:
        """The daemon of the trainer's home."""
        (daemon,) = processes.daemons(self.home)
        return daemon

    def close(self) -> None:
        """End everything."""
        for home in (self.home, self.hub_home):
            processes.stop_home(home)
        for child in self._children:
            child.kill()
            child.wait(20)


@contextlib.contextmanager
def stopped(process: psutil.Process, says: list[str]) -> Iterator[None]:
    """SIGSTOP; afterwards SIGCONT."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
        if process.status() == psutil.STATUS_STOPPED:
            says.append(f"pid {process.pid} stood still")
    finally:
        process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _no_fault(_site: Site, says: list[str]) -> Iterator[None]:
    says.append("none")
    yield


@contextlib.contextmanager
def _agent_stopped(site: Site, says: list[str]) -> Iterator[None]:
    with stopped(site.agent(), says), _behind(site, spool.RECEIVED, says):
        yield


@contextlib.contextmanager
def _courier_stopped(site: Site, says: list[str]) -> Iterator[None]:
    with stopped(psutil.Process(site.word(spool.COURIER_PID)), says), _behind(site, spool.RECEIVED, says):
        yield


@contextlib.contextmanager
def _hub_away(site: Site, says: list[str]) -> Iterator[None]:
    site.stop_hub()
    with _behind(site, spool.COMMITTED, says):
        yield
    site.start_hub()


@contextlib.contextmanager
def _disk_slow(site: Site, says: list[str]) -> Iterator[None]:
    (site.directory / "slow").touch()
    yield
    (site.directory / "slow").unlink()
    count = (site.directory / "slow.log").stat().st_size if (site.directory / "slow.log").exists() else 0
    if count > 0:
        says.append(f"{count} syncs delayed")


@contextlib.contextmanager
def _full(site: Site, says: list[str]) -> Iterator[None]:
    with stopped(site.agent(), []):
        yield
        if (lost := site.word(spool.ASSIGNED) - site.word(spool.PUBLISHED)) > 0:
            says.append(f"{lost} seqs without room")


@contextlib.contextmanager
def _behind(site: Site, index: int, says: list[str]) -> Iterator[None]:
    """Proof: the watermark stands still while the trainer goes on."""
    before, published = site.word(index), site.word(spool.PUBLISHED)
    yield
    went_on = site.word(spool.PUBLISHED) - published
    left = site.word(spool.PUBLISHED) - site.word(index)
    if went_on > 0 and left > went_on / 2:
        says.append(f"{left} seqs behind (from {before})")


Fault = Callable[[Site, list[str]], "contextlib.AbstractContextManager[None]"]
FAULTS: dict[str, Fault] = {
    "none": _no_fault, "agent stopped": _agent_stopped, "courier stopped": _courier_stopped,
    "slow disk": _disk_slow, "hub away": _hub_away, "full": _full,
}  # fmt: skip
PROOFS = {"agent stopped": 2, "courier stopped": 2}
"""How many things must say that the fault was there; else one."""


def hold(directory: Path, fault: str, seconds: float, rate: int = 2000, delay_s: float = 0.5) -> Outcome:
    """One phase in a fresh `directory`: `seconds` of the fault at `rate` rows of 21 values per second."""
    site, says = Site(directory), []  # type: tuple[Site, list[str]]
    try:
        site.start_hub()
        site.start_agent(**(_slow_environment(directory, delay_s) if fault == "slow disk" else {}))
        quota = {"TRACKD_SPOOL_QUOTA_BYTES": str(4 << 20)} if fault == "full" else {}
        trainer = site.train(rate, **quota)
        with FAULTS[fault](site, says):
            since_ns = time.perf_counter_ns()
            time.sleep(seconds)  # this long it lasts
            until_ns = time.perf_counter_ns()
        (directory / "stop").touch()
        assert trainer.wait(90) == 0, (directory / "trainer.log").read_text()
        took = _times(directory / "times", since_ns, until_ns)
        logged = json.loads((directory / "told").read_text())
        held, lost, wrong = _held(places.instance(site.hub_home), logged)
    finally:
        site.close()
    is_proved = len(says) >= PROOFS.get(fault, 1)
    return Outcome(fault, took, ", ".join(says) if is_proved else "", logged, held, lost, wrong)


def _slow_environment(directory: Path, delay_s: float) -> dict[str, str]:
    """A library that delays fsync and fdatasync while the file `slow` exists, and counts them."""
    (directory / "slow.c").write_text(SLOW)
    library = directory / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(directory / "slow.c")], check=True)
    return {
        "LD_PRELOAD": str(library), "SLOW_US": str(int(delay_s * 1e6)), "SLOW_IF": str(directory / "slow"),
        "SLOW_LOG": str(directory / "slow.log"),
    }  # fmt: skip


def _times(path: Path, since_ns: int, until_ns: int) -> list[int]:
    numbers = array.array("q")
    numbers.frombytes(path.read_bytes())
    half = len(numbers) // 2
    return sorted(t for at, t in zip(numbers[:half], numbers[half:], strict=True) if since_ns <= at < until_ns)


def _held(where: instance.Instance, logged: int, timeout_s: float = 90.0) -> tuple[int, int, int]:
    """Rows in the hub, rows declared lost, rows that are wrong: as soon as nothing is missing."""
    deadline = time.monotonic() + timeout_s
    while True:
        held = lost = wrong = 0
        last = -1
        with contextlib.suppress(HubError):
            client = HubClient.find(where)
            writers = client.get(f"/runs/{PROJECT}/run/writers")["writers"]
            lost = sum(loss["count"] for writer in writers for loss in writer["losses"])
            for row in client.rows(f"/runs/{PROJECT}/run/scan"):
                wrong += not last < row["x"] < logged
                last = row["x"]
                held += 1
        if held + lost >= logged or time.monotonic() > deadline:
            return held, lost, wrong
        time.sleep(0.3)


def count(where: instance.Instance, logged: int, timeout_s: float = 180.0) -> int:
    """Rows that the hub holds, as soon as there are so many or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    rows = 0
    while rows < logged and time.monotonic() < deadline:
        with contextlib.suppress(HubError):
            rows = int(HubClient.find(where).get(f"/runs/{PROJECT}/run")["rows"])
        time.sleep(0.3)
    return rows

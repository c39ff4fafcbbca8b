"""Training processes, their couriers, the agent and perhaps a hub elsewhere: started, found, killed, replaced."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from trackd_proto import spool
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, HubError, NotFoundError

from support import oracle, processes, serving

SEGMENT_BYTES = 32 * 1024
LONG, SHORT = 1 << 40, 60
"""Rows of a trainer that goes on until it is killed, and of one that ends by itself."""


def kill(pid: int, is_it: Callable[[psutil.Process], bool] = lambda _process: True) -> bool:
    """SIGKILL through a pidfd, so that no other process can be hit; True once that very process is dead by it."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # gone, or no number that a process can have
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not is_it(process):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(5000))
    except (ProcessLookupError, psutil.Error):
        return False
    finally:
        os.close(descriptor)


def listed(directory: Path, pattern: str) -> list[Path]:
    """As Path.glob, where directories come and go meanwhile."""
    while True:
        try:
            return list(directory.glob(pattern))
        except FileNotFoundError:
            continue


@dataclass
class Trainer:
    """One training process and what is known of it."""

    number: int
    run_id: str
    pad_bytes: int
    process: subprocess.Popen[bytes]
    is_short: bool
    was_killed: bool = False
    has_courier: bool = True
    verified: int = 0
    """Rows seen in the hub."""


class Fleet:
    """Trainers of one home; with `has_hub` the hub is a process of its own that is started again when it is gone."""

    def __init__(self, directory: Path, *, has_hub: bool, rng: random.Random, long: int = 3) -> None:
        self.rng = rng
        self.oracle = oracle.Oracle()
        self.home = directory / "home"
        self.hub_home = directory / "hub" if has_hub else self.home
        self.pause = directory / "pause"
        self.where: Instance = places.instance(self.home)
        self.trainers: list[Trainer] = []
        self._long = long
        self._numbers = itertools.count(1)
        self._hub: subprocess.Popen[bytes] | None = None
        self._directory = directory
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKD_", "GRPC_"))}
        self.environment = kept | {
            "TRACKD_HOME": str(self.home), "TRACKD_QUIET": "1", "TRACKD__SEGMENT_BYTES": str(SEGMENT_BYTES),
        }  # fmt: skip
        self.home.mkdir(mode=0o700, exist_ok=True)
        if has_hub:
            self.hub_home.mkdir(mode=0o700, exist_ok=True)
            self._address = f"127.0.0.1:{serving.free_port()}"
            there = places.instance(self.hub_home)
            instance.load_cookie(there)
            self.environment |= {"TRACKD_UPSTREAM": self._address, "TRACKD_UPSTREAM_COOKIE": str(there.cookie)}
            self.tend_hub()

    # -- keeping it going

    def tend(self) -> None:
        """Put new trainers in the place of those that are gone, and a new hub."""
        self.tend_hub()
        living = [t for t in self.trainers if t.process.poll() is None]
        while sum(not t.is_short for t in living) < self._long:
            living.append(self.train(is_short=False))
        if not any(t.is_short for t in living):
            self.train(is_short=True)

    def tend_hub(self) -> None:
        """Start the separate hub if none runs."""
        if self.hub_home == self.home or (self._hub is not None and self._hub.poll() is None):
            return
        command = "from trackd_daemon.cli import main; main()"
        with (self._directory / "hub.log").open("ab") as log:
            self._hub = subprocess.Popen(
                [sys.executable, "-c", command, "serve", "--role", "hub", "--listen", self._address],
                env=self.environment | {"TRACKD_HOME": str(self.hub_home)}, stdout=log, stderr=log,
            )  # fmt: skip

    def train(self, *, is_short: bool, **environ: str) -> Trainer:
        """One more, with these variables besides those of all."""
        number = next(self._numbers)
        pad_bytes = 0 if is_short else (1024, 256)[number % 2]  # segments and chunks are to be filled
        run_id = f"t{number}"
        rows = SHORT if is_short else LONG
        words = [run_id, number, rows, pad_bytes, 0.004, self.oracle.pipe, self.pause]
        with (self._directory / "trainers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", oracle.TRAINER, *map(str, words)],
                env=self.environment | environ, cwd=self._directory, stdout=log, stderr=log,
                pass_fds=(self.oracle.pipe,),
            )  # fmt: skip
        trainer = Trainer(number, run_id, pad_bytes, process, is_short)
        self.trainers.append(trainer)
        return trainer

    # -- finding and killing

    def choose(self) -> Trainer:
        """A long trainer that has logged something, rather one that has lost its courier."""
        living = [t for t in self.trainers if t.process.poll() is None and not t.is_short]
        said = self.oracle.returned()
        started = [t for t in living if said.get(t.number, 0)] or living
        return min(started, key=lambda t: (t.has_courier, self.rng.random()))

    def kill_trainer(self, trainer: Trainer) -> bool:
        """SIGKILL."""
        trainer.was_killed = kill(trainer.process.pid)
        trainer.process.wait(10)
        return trainer.was_killed

    def kill_courier(self, trainer: Trainer) -> bool:
        """The courier that serves this trainer, its own or one that has taken the session over."""
        for head in self.heads(trainer):
            if kill(head[spool.COURIER_PID], lambda p: any("courier" in word for word in p.cmdline())):
                trainer.has_courier = False
                return True
        return False

    def kill_agent(self) -> bool:
        """The daemon of the home, published or still starting."""
        return any(kill(pid, processes.is_ours) for pid in self.agent_pids())

    def kill_hub(self) -> bool:
        """The separate hub."""
        return self._hub is not None and kill(self._hub.pid)

    def agent_pids(self) -> list[int]:
        """Who owns the instance directory, and who is only about to."""
        return [*([owner] if (owner := self.owner()) else []), *self.starting()]

    def owner(self) -> int:
        """Who holds daemon.lock, as the kernel says; 0: nobody."""
        try:
            status = self.where.daemon_lock.stat()
        except FileNotFoundError:
            return 0
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
        return 0

    def starting(self) -> list[int]:
        """Daemons of the home that run and do not own it yet."""
        owner = self.owner()
        found = []
        for entry in listed(Path("/proc"), "[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if b"--spawned" not in command or int(entry.name) == owner:
                    continue
                if f"TRACKD_HOME={self.home}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def epoch(self) -> int:
        """Of the daemon that listens; 0: none does."""
        published = instance.read_published(self.where)
        return published.epoch if published is not None and instance.is_listening(self.where) else 0

    def heads(self, trainer: Trainer) -> Iterator[memoryview]:
        """The words of each head in the trainer's session."""
        for path in listed(self.where.spool, "*/session.json"):
            with contextlib.suppress(OSError, ValueError):
                if msgspec.json.decode(path.read_bytes(), type=spool.SessionInfo).pid != trainer.process.pid:
                    continue
                for head in listed(path.parent, "*.head"):
                    if len(data := head.read_bytes()) == spool.HEAD_BYTES:
                        yield memoryview(data).cast("Q")

    # -- what has arrived

    def missing(self, returned: dict[int, int]) -> tuple[int, list[str]]:
        """How many of these rows the hub does not have yet, and what is wrong with those it has. Raises HubError."""
        client = HubClient.find(places.instance(self.hub_home))
        absent, problems = 0, []
        for trainer in self.trainers:
            due, first = returned.get(trainer.number, 0), trainer.verified
            if due <= first:
                continue
            rows, wrong = self._read(client, trainer, first)
            # Rows said after `returned` was taken may be here as well: verdict() looks at those.
            here = [row for row in rows if row["i"] < due]
            wrong += oracle.judge(trainer.number, trainer.pad_bytes, first + len(here), here, first)
            absent += max(0, due - first - len(here))
            problems += [f"{trainer.run_id}: {text}" for text in wrong]
            trainer.verified += len(here) if not wrong else 0
        return absent, problems

    def verdict(self) -> tuple[int, list[str]]:
        """All rows of all trainers, which are dead, read once more: how many, and what is wrong. Raises HubError."""
        client, returned = HubClient.find(places.instance(self.hub_home)), self.oracle.returned()
        count, problems = 0, []
        for trainer in self.trainers:
            rows, wrong = self._read(client, trainer, 0)
            wrong += oracle.judge(trainer.number, trainer.pad_bytes, returned.get(trainer.number, 0), rows)
            count += len(rows)
            problems += [f"{trainer.run_id}: {text}" for text in wrong]
        return count, problems

    def _read(self, client: HubClient, trainer: Trainer, first: int) -> tuple[list[dict[str, Any]], list[str]]:
        path = f"/runs/{oracle.PROJECT}/{trainer.run_id}"
        try:
            rows = list(client.rows(f"{path}/scan", {"start": first}))
            losses = [w for w in client.get(f"{path}/writers")["writers"] if w["losses"]]
        except NotFoundError:  # killed before init() had said anything
            return [], []
        return rows, [f"declared lost: {losses}"] if losses else []

    def wait_until_drained(self, timeout_s: float) -> tuple[float, list[str]]:
        """Until the hub has every row that has been said by now; seconds, and what is wrong."""
        returned, began = self.oracle.returned(), time.monotonic()
        while True:
            self.tend()
            try:
                absent, problems = self.missing(returned)
            except HubError as error:
                absent, problems = -1, [str(error)]
            took_s = time.monotonic() - began
            if absent == 0 or (absent > 0 and problems):
                return took_s, problems
            if took_s > timeout_s:
                return took_s, [*problems, f"{absent} rows are missing after {took_s:.0f} s"]
            time.sleep(0.05)

    def close(self) -> None:
        """End everything."""
        for trainer in self.trainers:
            if trainer.process.poll() is None:
                self.kill_trainer(trainer)
        processes.stop_home(self.home)
        processes.stop_home(self.hub_home)
        if self._hub is not None:
            self._hub.wait(20)
        self.oracle.close()

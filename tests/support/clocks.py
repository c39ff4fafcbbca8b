"""A trainer, an agent and a hub, each with a wall clock of its own that is set while they run (clock.c).

A clock is proved to have been set by what its process says itself: the trainer in its rows, the agent in its status,
the hub in the Date header of its answers. The oracle of rows: the trainer's row i holds x = i, its forked child's
y = i; each also holds the monotonic time of its log(), which no clock here changes, so that the hub's newest row says
how far behind the hub is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import psutil
import urllib3
from trackd_proto import spool
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, NotFoundError
from trackd_proto.v1 import ingest_pb2

from support import nonblocking, processes, serving, shim

PROJECT: Final = "clocks"
HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
YEARS_S: Final = 3652 * DAY_S
"""Ten of them."""
FRESH_S: Final = 10.0
"""No timer behind log() has a longer period: retries after 8 s at most, signs of life every 5 s."""
_AGAIN_S: Final = 1.0
"""What is in the hub so soon after its log() waits for no timer any more."""
_CONTROL_BYTES: Final = 8 * 5
_AT_ONCE_S: Final = 30.0
"""What is read of a clock is so old at most."""
TRAINER: Final = """
import os, sys, time, trackd
out, name = sys.argv[1:3]
def log(run, key, seen):
    count = 0
    while not os.path.exists(out + "/stop"):
        if not os.path.exists(out + "/pause"):
            run.log({key: count, key + "_at": time.monotonic(), key + "_wall": time.time()} | seen)
            count += 1
        time.sleep(0.01)
    return count
run = trackd.init(project="clocks", id=name)
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, b"%d" % log(run, "y", {}))
    os._exit(0)
rows = log(run, "x", {"pad": "p" * int(sys.argv[3])})
os.waitpid(child, 0)
run.finish()
with open(f"{out}/{name}.new", "w") as file:
    file.write(f"[{rows}, {int(os.read(read, 99))}]")
os.rename(f"{out}/{name}.new", f"{out}/{name}.told")
"""
MANY: Final = """
import json, sys, time, trackd
runs = [trackd.init(project="clocks", reinit="create_new") for _ in range(int(sys.argv[1]))]
for run in runs:
    run.log({"x": 0})
for run in runs:
    run.finish()
print(json.dumps([time.time(), [run.id for run in runs]]))
"""


class Clock:
    """The wall clock of the processes that are started with `environ`, and of those that they start."""

    def __init__(self, control: Path) -> None:
        built = shim.library("clock.c")
        assert built is not None, "no C compiler"
        control.write_bytes(bytes(_CONTROL_BYTES))
        self.environ = {"LD_PRELOAD": str(built), "CLOCK_CONTROL": str(control)}
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL_BYTES)
        self._words = memoryview(self._map).cast("l")

    def set(self, ahead_s: float) -> None:
        """It goes on from now plus `ahead_s`."""
        self._words[0] = int(ahead_s * 1e9)
        self._words[1] = 0

    def freeze(self) -> None:
        """It stands still from now on."""
        self._words[2] = time.time_ns() + self._words[0]
        self._words[1] = 1

    def now_s(self) -> float:
        """What those processes see."""
        return (self._words[2] if self._words[1] else time.time_ns() + self._words[0]) / 1e9

    def shows(self, wall_s: float) -> bool:
        """Whether a process that read this a moment ago has this clock."""
        return abs(self.now_s() - wall_s) < _AT_ONCE_S

    @property
    def waits(self) -> int:
        """How often somebody has waited for a moment of the wall clock: a jump changes how long that takes."""
        return self._words[4]

    def close(self) -> None:
        """Let go of the control file."""
        self._words.release()
        self._map.close()


class Host:
    """A home: its agent has one clock, its trainers and their couriers another."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(mode=0o700, parents=True)
        self.where = places.instance(self.home)
        self.trainer_clock, self.agent_clock = Clock(directory / "trainer.clock"), Clock(directory / "agent.clock")
        self._environment = environment | {"TRACKD_HOME": str(self.home), "TRACKD_QUIET": "1"}
        self._agent = contextlib.ExitStack()
        self._trainers: dict[str, subprocess.Popen[bytes]] = {}

    def start_agent(self) -> None:
        """In the foreground, so that it has its own clock."""
        environ = self._environment | self.agent_clock.environ
        self._agent.enter_context(serving.serving(self.home, "--role", "agent", **environ))
        serving.wait_for(lambda: serving.ready(self.where), "the agent listens", 60)

    def restart_agent(self) -> int:
        """SIGTERM, and another; how many of the trainers' writers it has forgotten.

        Couriers stand still meanwhile: the agent that they would start has no clock of ours.
        """
        with contextlib.ExitStack() as standing:
            for courier in self._couriers():
                standing.enter_context(nonblocking.stopped(courier, []))
            self._agent.close()
            self.start_agent()
            return sum(received == 0 for received, _ in self._progress())

    def _couriers(self) -> list[psutil.Process]:
        return [process for process in processes.of_home(self.home) if "-I" in process.cmdline()]

    def kill_couriers(self) -> int:
        """SIGKILL; how many there were."""
        couriers = self._couriers()
        for courier in couriers:
            courier.kill()
        psutil.wait_procs(couriers, timeout=20)
        return len(couriers)

    def freed_chunks(self) -> int:
        """Of the lane that has freed most: chunks are numbered from 0."""
        return max(int(path.name.split(".")[1]) for path in self.where.spool.glob("*/*.chunk")) - 1

    def is_known(self) -> bool:
        """Whether the agent has all that was logged."""
        return all(received >= published for received, published in self._progress())

    def _progress(self) -> list[tuple[int, int]]:
        """Of each lane: the seq that the agent has, the seq that was logged."""
        heads = {bytes.fromhex(path.stem): path.read_bytes() for path in self.where.spool.glob("*/*.head")}
        received = asyncio.run(self._received(list(heads)))
        return [(received[one], memoryview(head).cast("Q")[spool.PUBLISHED]) for one, head in heads.items()]

    async def _received(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        link = await instance.connect(self.where)
        try:
            reply = await link.ingest.Resume(ingest_pb2.ResumeRequest(writer_ids=writer_ids), timeout=10)
            return {mark.writer_id: mark.received for mark in reply.watermarks}
        finally:
            await link.channel.close()

    def train(self, name: str, pad_bytes: int = 0) -> None:
        """A trainer that logs, and its child, until `finish`."""
        with (self.directory / "trainer.log").open("ab") as log:
            self._trainers[name] = subprocess.Popen(
                [sys.executable, "-c", TRAINER, str(self.directory), name, str(pad_bytes)], stdout=log, stderr=log,
                env=os.environ | self._environment | self.trainer_clock.environ, cwd=self.directory,
            )  # fmt: skip

    def pause(self, *, is_on: bool) -> None:
        """The trainers log nothing for a while."""
        if is_on:
            (self.directory / "pause").touch()
        else:
            (self.directory / "pause").unlink()

    def begin_many(self, count: int) -> tuple[float, list[str]]:
        """A program with so many runs at once: what it saw as the time, and their ids."""
        done = subprocess.run(
            [sys.executable, "-c", MANY, str(count)], env=os.environ | self._environment | self.trainer_clock.environ,
            cwd=self.directory, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        wall_s, ids = json.loads(done.stdout)
        return wall_s, ids

    def finish(self) -> dict[str, list[int]]:
        """End the trainers: name → rows that they logged and that their children logged."""
        (self.directory / "stop").touch()
        for name, trainer in self._trainers.items():
            assert trainer.wait(120) == 0, f"{name}: {(self.directory / 'trainer.log').read_text()}"
        return {name: json.loads((self.directory / f"{name}.told").read_text()) for name in self._trainers}

    def kill(self) -> None:
        """SIGKILL of all that runs here: nobody is left to say how the runs ended."""
        for process in processes.of_home(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for trainer in self._trainers.values():
            trainer.wait(20)

    def said(self) -> str:
        """What trainers and couriers wrote to their users."""
        return (self.directory / "trainer.log").read_text()

    def route(self) -> ingest_pb2.RouteStatus:
        """What the agent says of its way to the hub."""
        return asyncio.run(self._route())

    async def _route(self) -> ingest_pb2.RouteStatus:
        link = await instance.connect(self.where)
        try:
            reply = await link.control.Status(ingest_pb2.StatusRequest(), timeout=10)
            return next((route for route in reply.routes if route.route != "embedded"), ingest_pb2.RouteStatus())
        finally:
            await link.channel.close()

    def wait_for_retry(self) -> None:
        """Until the agent waits before it tries the hub again."""
        serving.wait_for(lambda: self.route().state not in ("", "connected"), "the agent misses its hub", 30)

    def close(self) -> None:
        """End everything."""
        (self.directory / "stop").touch()
        for trainer in self._trainers.values():
            trainer.kill()
            trainer.wait(20)
        self._agent.close()
        processes.stop_home(self.home)
        self.trainer_clock.close()
        self.agent_clock.close()


@dataclass
class Seen:
    """What the hub showed of a run over some time."""

    behind_s: float = 0.0
    """How old its newest row was at most."""
    states: list[str] = field(default_factory=list)
    """Each state that followed another."""


class Site:
    """One hub, and hosts that send to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.home = directory / "hub"
        self.home.mkdir(mode=0o700, parents=True)
        self.where = places.instance(self.home)
        instance.load_cookie(self.where)
        self.clock = Clock(directory / "hub.clock")
        self._address = f"127.0.0.1:{serving.free_port()}"
        self._hub = contextlib.ExitStack()
        self._hosts: list[Host] = []

    def start_hub(self) -> None:
        """Until it answers."""
        arguments = ("--role", "hub", "--listen", self._address)
        self._hub.enter_context(serving.serving(self.home, *arguments, **self.clock.environ))
        serving.wait_for(lambda: serving.ready(self.where), "the hub listens", 60)

    def stop_hub(self) -> None:
        """Until it is gone."""
        self._hub.close()

    def host(self, name: str) -> Host:
        """A new one, with an agent that runs."""
        upstream = {"TRACKD_UPSTREAM": self._address, "TRACKD_UPSTREAM_COOKIE": str(self.where.cookie)}
        host = Host(self._directory / name, upstream)
        self._hosts.append(host)
        host.start_agent()
        return host

    def clocks(self, host: Host) -> dict[str, Clock]:
        """Who → whose clock."""
        return {"trainer": host.trainer_clock, "agent": host.agent_clock, "hub": self.clock}

    # -- what the hub shows

    def ask(self, path: str, **params: str | Sequence[str]) -> Any:
        """A route of the HTTP API."""
        return HubClient.find(self.where).get(path, params)

    def facts(self, name: str) -> dict[str, Any]:
        """A run as the hub has it; {}: it has none."""
        try:
            found: dict[str, Any] = self.ask(f"/runs/{PROJECT}/{name}")
        except NotFoundError:
            return {}
        return found

    def wait_for_rows(self, name: str) -> None:
        """Of the trainer and of its child."""
        serving.wait_for(lambda: {"x", "y"} <= self.facts(name).get("summary", {}).keys(), f"rows of {name}", 60)

    def watch(self, name: str, seconds: float) -> Seen:
        """A run that goes on, for so long; and then until its newest row is fresh and it runs."""
        seen, began = Seen(), time.monotonic()
        while True:
            facts = self.facts(name)
            behind_s = time.monotonic() - min(facts["summary"]["x_at"], facts["summary"]["y_at"])
            seen.behind_s = max(seen.behind_s, behind_s)
            if seen.states[-1:] != [facts["state"]]:
                seen.states.append(facts["state"])
            passed_s = time.monotonic() - began
            if passed_s > seconds and behind_s < _AGAIN_S and facts["state"] == "running":
                return seen
            assert passed_s < seconds + 4 * FRESH_S, f"{name} is {facts['state']}, {behind_s:.1f} s behind"
            time.sleep(0.05)

    def catch_up_s(self, name: str) -> float:
        """Until the hub is no longer behind."""
        began = time.monotonic()
        self.watch(name, 0)
        return time.monotonic() - began

    def proofs(self, host: Host, name: str) -> dict[str, bool]:
        """Who → whether it says itself that it has the time of its clock."""
        facts = self.facts(name)["summary"]
        with urllib3.PoolManager() as pool:
            date = pool.request("HEAD", HubClient.find(self.where).url, timeout=10, retries=False).headers["Date"]
        return {
            "trainer": host.trainer_clock.shows(facts["x_wall"]) and host.trainer_clock.shows(facts["y_wall"]),
            "agent": host.agent_clock.shows(host.route().last_contact_us / 1e6),
            "hub": self.clock.shows(parsedate_to_datetime(date).timestamp()),
        }

    def wait_for_proofs(self, host: Host, name: str) -> None:
        """Until each of them has been seen to have the time of its clock."""
        serving.wait_for(lambda: all(self.proofs(host, name).values()), "all have the time of their clocks", 30)

    def problems(self, host: Host) -> list[str]:
        """Ends the trainers of a host; what is wrong with what the hub has of them in the end."""
        found = []
        for name, (rows, child_rows) in host.finish().items():
            with contextlib.suppress(AssertionError):  # `_judge` says what is missing
                serving.wait_for(lambda name=name, count=rows + child_rows: self._is_all_there(name, count), "rows", 60)
            found += [f"{name}: {text}" for text in self._judge(name, rows, child_rows)]
        return found + ([f"said to the user: {host.said()}"] if "lost" in host.said() else [])

    def _is_all_there(self, name: str, count: int) -> bool:
        facts = self.facts(name)
        return bool(facts) and facts["rows"] >= count and facts["state"] == "finished"

    def _judge(self, name: str, rows: int, child_rows: int) -> Iterator[str]:
        facts, path = self.facts(name), f"/runs/{PROJECT}/{name}"
        if (facts["state"], facts["lost_records"]) != ("finished", 0):
            yield f"{facts['state']}, {facts['lost_records']} lost"
        held: dict[str, list[int]] = {"x": [], "y": []}
        for row in HubClient.find(self.where).rows(f"{path}/scan"):
            for key in held.keys() & row.keys():  # rows of one step come as one
                held[key].append(row[key])
        for key, count in (("x", rows), ("y", child_rows)):
            if held[key] != list(range(count)):
                yield f"{len(held[key])} of {count} rows of {key}, in order: {held[key] == sorted(held[key])}"
            chart = [(row["_step"], row[key]) for row in self.ask(f"{path}/history", keys=[key])["rows"]]
            if not chart or any(step != value for step, value in chart) or chart[-1][1] != count - 1:
                yield f"the chart of {key} is not the line that was logged: {chart[:3]}...{chart[-3:]}"
        writers = [writer["writer_id"] for writer in self.ask(f"{path}/writers")["writers"]]
        if len(set(writers)) != len(writers):
            yield f"writer ids twice: {writers}"

    def close(self) -> None:
        """End everything."""
        for host in self._hosts:
            host.close()
        self._hub.close()
        processes.stop_home(self.home)
        self.clock.close()


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A hub that runs; afterwards nothing of it runs any more."""
    one = Site(directory)
    try:
        one.start_hub()
        yield one
    finally:
        one.close()


SETTINGS: Final[dict[str, Callable[[Clock], None]]] = {
    "ten years ahead": lambda clock: clock.set(YEARS_S),
    "ten years back": lambda clock: clock.set(-YEARS_S),
    "an hour ahead (DST)": lambda clock: clock.set(HOUR_S),
    "an hour back (DST)": lambda clock: clock.set(-HOUR_S),
    "standing still": lambda clock: clock.freeze(),
    "right": lambda clock: clock.set(0),
}
"""What is done to a clock that is right, or wrong in the way before."""

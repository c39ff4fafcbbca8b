"""Trainers that log for hours beside faults, and what trackd's processes take meanwhile.

Two homes on one machine, each with an agent and trainers of its own, send to one separate hub through a proxy. The
agent of the first is killed at intervals, that of the second never; the hub is out of reach at intervals, and stopped
and started again. The oracle: row i of a run holds x = i and y = i / 7, and each trainer says how many it logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, HubError

from support import processes, samples, serving
from support.proxy import Proxy

PROJECT = "soak"
TRAINER = """
import os, sys, time, trackd
home, name, runs, rate, stop, told = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:7]
opened = [trackd.init(project="soak", id=f"{name}-{n}", reinit="create_new") for n in range(runs)]
began, rows = time.monotonic(), 0
while not os.path.exists(stop):
    time.sleep(0.2)
    due = int((time.monotonic() - began) * rate)
    for i in range(rows, due):
        for run in opened:
            run.log({"x": i, "y": i / 7})
    rows = max(rows, due)
for run in opened:
    run.finish()
with open(told + ".new", "w") as file:
    file.write(str(rows))
os.rename(told + ".new", told)
while os.path.exists(stop):
    time.sleep(0.2)
"""


@dataclass(frozen=True)
class Plan:
    """How long, how much, and which faults when (seconds from the start)."""

    seconds: float
    trainers: int = 2
    """Of each home."""
    runs: int = 3
    """Of each trainer."""
    rate: float = 200.0
    """Rows per second and run."""
    interval_s: float = 10.0
    kill_every_s: float = 600.0
    cut_every_s: float = 420.0
    cut_s: float = 45.0
    restarts: tuple[float, ...] = (0.1, 0.85)
    """When the hub is stopped and started, as parts of the whole."""
    down_s: float = 20.0


@dataclass
class Outcome:
    """What was seen."""

    watch: samples.Watch = field(default_factory=samples.Watch)
    sizes: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """Bytes on the disk of `<home>/<what>` over time."""
    faults: list[tuple[float, str]] = field(default_factory=list)
    logged: int = 0
    held: int = 0
    problems: list[str] = field(default_factory=list)
    drained_s: float = 0.0
    segments: dict[str, int] = field(default_factory=dict)
    """WAL segments of each agent after the drain."""
    paths: dict[str, str] = field(default_factory=dict)
    """Where the programs that ran came from, by role."""

    def count(self, what: str) -> int:
        """Faults of one kind that fired."""
        return sum(kind == what for _, kind in self.faults)


class Soak:
    """One site; run() does everything."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._directory = directory
        self._stop = directory / "stop"
        self._homes = {name: directory / name for name in ("killed", "left")}
        self._hub_home = directory / "hub"
        self._port = serving.free_port()
        self._trainers: dict[str, subprocess.Popen[bytes]] = {}
        self._hub: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKD_", "GRPC_"))}
        self._environment = kept | {"TRACKD_QUIET": "1"}

    def run(self) -> Outcome:
        """The whole of it; every process is gone afterwards."""
        for home in (*self._homes.values(), self._hub_home):
            home.mkdir(mode=0o700)
        try:
            with proxying(self._port) as proxy:
                self._start_hub()
                cookie = places.instance(self._hub_home)
                instance.load_cookie(cookie)
                self._environment |= {
                    "TRACKD_UPSTREAM": f"127.0.0.1:{proxy.port}", "TRACKD_UPSTREAM_COOKIE": str(cookie.cookie),
                }  # fmt: skip
                self._train()
                self._go_on(proxy)
                self._drain(proxy)
        finally:
            self._close()
        return self.outcome

    # -- the course of it

    def _train(self) -> None:
        for place, home in self._homes.items():
            for number in range(self.plan.trainers):
                name = f"{place}{number}"
                words = [home, name, self.plan.runs, self.plan.rate, self._stop, self._directory / f"{name}.told"]
                with (self._directory / "trainers.log").open("ab") as log:
                    self._trainers[name] = subprocess.Popen(
                        [sys.executable, "-c", TRAINER, *map(str, words)], stdout=log, stderr=log,
                        env=self._environment | {"TRACKD_HOME": str(home)}, cwd=self._directory,
                    )  # fmt: skip

    def _go_on(self, proxy: Proxy) -> None:
        """Samples and faults until the time is over."""
        plan = self.plan
        due = [(n * plan.interval_s, "sample") for n in range(int(plan.seconds / plan.interval_s) + 1)]
        due += [(t, "kill") for t in _times(plan.kill_every_s, plan.seconds)]
        for at in _times(plan.cut_every_s, plan.seconds):
            due += [(at, "cut"), (at + plan.cut_s, "heal")]
        for part in plan.restarts:
            due += [(part * plan.seconds, "hub stopped"), (part * plan.seconds + plan.down_s, "hub started")]
        for at, what in sorted(due):
            time.sleep(max(0.0, self._began + at - time.monotonic()))
            if what == "sample":
                self._sample()
            else:
                self._do(what, proxy)
        self._do("heal", proxy)
        self._do("hub started", proxy)

    def _do(self, what: str, proxy: Proxy) -> None:
        if what == "kill":
            for daemon in processes.daemons(self._homes["killed"]):
                daemon.kill()
                daemon.wait(10)
                self._note("agent killed")
        elif what == "cut":
            proxy.is_resetting = True
            proxy.reset_all()
            self._note("hub out of reach")
        elif what == "heal":
            proxy.heal()
        elif what == "hub stopped" and self._hub is not None:
            self._hub.terminate()
            self._hub.wait(60)
            self._note("hub stopped")
        elif what == "hub started" and (self._hub is None or self._hub.poll() is not None):
            self._start_hub()

    def _note(self, what: str) -> None:
        self.outcome.faults.append((time.monotonic() - self._began, what))

    def _start_hub(self) -> None:
        command = "from trackd_daemon.cli import main; main()"
        with (self._directory / "hub.log").open("ab") as log:
            self._hub = subprocess.Popen(
                [sys.executable, "-c", command, "serve", "--role", "hub", "--listen", f"127.0.0.1:{self._port}"],
                env=self._environment | {"TRACKD_HOME": str(self._hub_home)}, stdout=log, stderr=log,
            )  # fmt: skip

    def _sample(self) -> None:
        now = time.monotonic() - self._began
        watch, paths = self.outcome.watch, self.outcome.paths
        if self._hub is not None:
            watch.look("hub", self._hub.pid, now)
        for name, trainer in self._trainers.items():
            watch.look(f"trainer {name}", trainer.pid, now)
        for place, home in self._homes.items():
            for process in processes.of_home(home):
                with contextlib.suppress(psutil.Error):
                    words = process.cmdline()
                    if "-I" in words and any("trackd.courier" in word for word in words):
                        watch.look(f"courier {words[-1][-4:]} {place}", process.pid, now)
                        paths["courier"] = words[4]
                    elif "--spawned" in words:
                        watch.look(f"agent {place}", process.pid, now)
                        paths["agent"] = next(w for w in words if "sys.path" in w).partition("[site:site] = ")[2]
        sizes: dict[str, int] = {}
        for place, home in {**self._homes, "hub": self._hub_home}.items():
            for name, size in samples.by_parent(home, depth=2).items():
                what = f"{place}/{name.partition('/')[2]}"
                sizes[what] = sizes.get(what, 0) + size
        self.outcome.sizes.append((now, {what: size for what, size in sizes.items() if size > samples.MIB // 4}))

    # -- the end

    def _drain(self, proxy: Proxy) -> None:
        """Tell the trainers to end, wait for the hub to have everything, count segments, judge the rows."""
        self._stop.touch()
        told = {name: self._directory / f"{name}.told" for name in self._trainers}
        serving.wait_for(lambda: all(path.exists() for path in told.values()), "the trainers end", 120)
        rows = {name: int(path.read_text()) for name, path in told.items()}
        began = time.monotonic()
        wanted = {f"{name}-{n}": count for name, count in rows.items() for n in range(self.plan.runs)}
        self.outcome.logged = sum(wanted.values())
        client = self._find_hub()
        with contextlib.suppress(AssertionError):
            serving.wait_for(lambda: _has_all(client, wanted), "the hub has every record", 300)
        self.outcome.drained_s = time.monotonic() - began
        self._sample()
        for run_id, count in wanted.items():
            try:
                held, problem = _judge(client, run_id, count)
            except HubError as error:
                held, problem = 0, str(error)
            self.outcome.held += held
            self.outcome.problems += [f"{run_id}: {problem}"] if problem else []
        for place, home in self._homes.items():
            (wal,) = home.glob("*/wal")
            with contextlib.suppress(AssertionError):
                serving.wait_for(lambda wal=wal: len(list(wal.glob("*.wal"))) <= 2, "few segments", 30)
            self.outcome.segments[place] = len(list(wal.glob("*.wal")))

    def _find_hub(self) -> HubClient:
        deadline = time.monotonic() + 60
        while True:
            try:
                return HubClient.find(places.instance(self._hub_home))
            except HubError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _close(self) -> None:
        self._stop.unlink(missing_ok=True)
        for trainer in self._trainers.values():
            trainer.kill()
            trainer.wait(10)
        for home in (*self._homes.values(), self._hub_home):
            processes.stop_home(home)
        if self._hub is not None:
            self._hub.wait(20)


def _times(every_s: float, until_s: float) -> Iterator[float]:
    at = every_s
    while at < until_s - 1:
        yield at
        at += every_s


def _has_all(client: HubClient, wanted: dict[str, int]) -> bool:
    try:
        for run_id, rows in wanted.items():
            writers = client.get(f"/runs/{PROJECT}/{run_id}/writers")["writers"]
            if sum(w["records"] for w in writers) <= rows:  # START and END are records as well
                time.sleep(0.5)
                return False
    except HubError:
        return False
    return True


def _judge(client: HubClient, run_id: str, count: int) -> tuple[int, str]:
    held = wrong = 0
    for row in client.rows(f"/runs/{PROJECT}/{run_id}/scan"):
        wrong += row["x"] != held or row["y"] != held / 7
        held += 1
    losses: list[Any] = [w for w in client.get(f"/runs/{PROJECT}/{run_id}/writers")["writers"] if w["losses"]]
    is_good = held == count and not wrong and not losses
    return held, "" if is_good else f"{held} of {count} rows, {wrong} out of place or wrong, declared lost: {losses}"


@contextlib.contextmanager
def proxying(port: int) -> Iterator[Proxy]:
    """A proxy to `port` on a thread of its own; its attributes may be set from here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    inner = Proxy(port)
    asyncio.run_coroutine_threadsafe(inner.start(), loop).result(10)
    resetting = inner.reset_all
    inner.reset_all = lambda: loop.call_soon_threadsafe(resetting) and None  # type: ignore[method-assign]
    try:
        yield inner
    finally:
        inner.reset_all = resetting  # type: ignore[method-assign]
        asyncio.run_coroutine_threadsafe(inner.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

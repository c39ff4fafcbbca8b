"""T2, T6, T7, T9: a real agent whose system calls on its log fail, fall short, wait or kill it (shim.c).

One hub, which is left alone, serves all rounds. In each of them two writers push small batches through several segments
until the hub has everything; the agent is started again if the fault killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient

from support import pushing, serving
from support.pushing import Writer
from support.shim import ANY, FOR_EVER, Shim

SEGMENT_BYTES: Final = 4_000
HANG_S: Final = 2.0
AT_WORK: Final = ("pwrite", "fdatasync", "fsync", "open", "unlink")
"""Calls that a running agent makes on its log."""
ERRORS: Final = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR)


@dataclass
class Outcome:
    """What came of many rounds."""

    rounds: int = 0
    fired: int = 0
    killed: int = 0
    slowest_answer_s: float = 0.0
    """Of the agent, asked for its watermarks while the fault lasted."""
    problems: list[str] = field(default_factory=list)


class Stage:
    """A hub, and an agent that runs under the shim."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.where = places.instance(self.home)
        self.there = places.instance(directory / "hub")
        for path in (self.home, directory / "hub"):
            path.mkdir(mode=0o700)
        instance.load_cookie(self.there)
        self.address = f"127.0.0.1:{serving.free_port()}"
        self.shim = Shim(directory, self.where.wal)
        self.agent: subprocess.Popen[bytes] | None = None
        self._rounds = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The hub runs; afterwards nothing does."""
        with serving.serving(self.directory / "hub", "--role", "hub", "--listen", self.address):
            await asyncio.to_thread(serving.wait_for, lambda: serving.ready(self.there), "the hub")
            try:
                yield
            finally:
                self.stop()
                self.shim.close()

    def start(self) -> None:
        """The agent; returns at once."""
        environ = os.environ | self.shim.environ | {
            "TRACKD_HOME": str(self.home), "TRACKD_UPSTREAM_COOKIE": str(self.there.cookie),
            "TRACKD__SEGMENT_BYTES": str(SEGMENT_BYTES),
        }  # fmt: skip
        command = "from trackd_daemon.cli import main; main()"
        with (self.home / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-c", command, "serve", "--role", "agent"], env=environ, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """SIGKILL."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(10)
            self.agent = None

    @property
    def has_died(self) -> bool:
        """The agent is gone, and not because of stop()."""
        return self.agent is not None and self.agent.poll() is not None

    async def link(self) -> instance.Link:
        """A connection, waiting for an agent that is only starting. Raises ConnectionError if it dies."""
        deadline = time.monotonic() + 30
        while True:
            if self.has_died:
                raise ConnectionError("the agent has ended")
            try:
                return await instance.connect(self.where)
            except instance.NotReachableError:
                assert time.monotonic() < deadline, "the agent does not answer"
                await asyncio.sleep(0.02)

    def writers(self) -> list[Writer]:
        """Two new ones, each with a run of its own."""
        self._rounds += 1
        return [Writer(f"r{self._rounds}{name}", route=self.address) for name in "ab"]

    def verify(self, writers: list[Writer], last: int) -> list[str]:
        """What is wrong with these writers in the hub."""
        client, problems = HubClient.find(self.there), []
        for writer in writers:
            path = f"/runs/p/{writer.run_id}"
            held = [(w["records"], w["next_seq"], w["losses"]) for w in client.get(f"{path}/writers")["writers"]]
            if held != [(last, last + 1, [])]:
                problems.append(f"{path}: {held}")
            if [row["value"] for row in client.rows(f"{path}/scan")] != [*range(2, last + 1)]:
                problems.append(f"{path}: wrong rows")
        return problems


async def push(link: instance.Link, writers: list[Writer], last: int, until: str = "committed") -> None:
    """Small batches, so that there are many calls."""
    await pushing.push(link, writers, last, until=until, size=4)


async def kill_at_each_call(stage: Stage, outcome: Outcome, *, step: int = 1, most: int = 10_000) -> None:
    """T2: SIGKILL at the first call on the log, at the next one, and so on, until the whole scenario takes fewer."""
    last, when = 24, 1
    while when <= most:
        writers = stage.writers()
        stage.shim.arm(ANY, "kill", when=when)
        stage.start()
        try:
            link = await stage.link()
            await push(link, writers, last)
        except Exception:
            if not stage.shim.fired:
                raise
        with contextlib.suppress(subprocess.TimeoutExpired):
            if stage.shim.fired and stage.agent is not None:
                stage.agent.wait(10)
        is_over = not stage.shim.disarm()
        outcome.rounds += 1
        if stage.agent is not None and stage.agent.poll() == -signal.SIGKILL:
            outcome.killed += 1
        stage.stop()
        stage.start()
        link = await stage.link()
        await push(link, writers, last)
        await link.channel.close()
        stage.stop()
        outcome.problems += [f"call {when}: {text}" for text in await asyncio.to_thread(stage.verify, writers, last)]
        if is_over:
            return
        outcome.fired += 1
        when += step


async def fail(
    stage: Stage, outcome: Outcome, kind: str, action: str, number: int, *, when: int = 1, times: int = 1
) -> None:
    """T6: one fault in a running agent; it answers all the while, and commits everything when the fault is over."""
    writers = stage.writers()
    if stage.agent is None:
        stage.start()
    link = await stage.link()
    await push(link, writers, 8)
    stage.shim.arm(kind, action, when=when, times=times, number=number)
    pusher = asyncio.create_task(push_until_fired(stage.shim, link, writers))
    deadline = time.monotonic() + (2.5 if times == FOR_EVER else 1.0)
    while time.monotonic() < deadline and not pusher.done():
        began = time.monotonic()
        await asyncio.wait_for(pushing.resume(link, writers), 10)
        outcome.slowest_answer_s = max(outcome.slowest_answer_s, time.monotonic() - began)
        await asyncio.sleep(0.02)
    fired = stage.shim.disarm()
    outcome.rounds += 1
    outcome.fired += fired > 0
    what = f"{kind} {action} {errno.errorcode.get(number, number)} at call {when}, {times} times"
    try:
        last = await asyncio.wait_for(pusher, 30)
        await asyncio.wait_for(push(link, writers, last), 30)
        await link.channel.close()
        if stage.has_died:
            outcome.problems.append(f"{what}: the agent has ended")
        wrong = await asyncio.to_thread(stage.verify, writers, last)
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if outcome.slowest_answer_s > HANG_S:
        wrong.append(f"no answer for {outcome.slowest_answer_s:.1f} s")
    outcome.problems += [f"{what}: {text}" for text in wrong]


async def push_until_fired(shim: Shim, link: instance.Link, writers: list[Writer]) -> int:
    """Pushes on: one sync may serve many batches, and the fault waits for the N-th. The last seq of each writer."""
    last = 8
    for _ in range(20):
        last += 32
        await push(link, writers, last, "durable")
        if shim.fired:
            break
    return last


async def slow(stage: Stage, outcome: Outcome, delay_ms: int, seconds: float) -> tuple[float, int]:
    """T9: each sync takes so long. Seconds that durable lags behind received at most, and the agent's peak memory."""
    writers = stage.writers()
    if stage.agent is None:
        stage.start()
    link = await stage.link()
    await push(link, writers, 8)
    stage.shim.arm("fdatasync", "delay", times=FOR_EVER, number=delay_ms)
    assert stage.agent is not None
    process = psutil.Process(stage.agent.pid)
    pusher = asyncio.create_task(push(link, writers, 400, "durable"))
    lag_s, memory, behind_since = 0.0, 0, None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        began = time.monotonic()
        marks = await asyncio.wait_for(pushing.resume(link, writers), 10)
        now = time.monotonic()
        outcome.slowest_answer_s = max(outcome.slowest_answer_s, now - began)
        is_behind = any(mark.durable < mark.received for mark in marks.values())
        behind_since = (behind_since or now) if is_behind else None
        lag_s = max(lag_s, now - behind_since if behind_since else 0.0)
        memory = max(memory, process.memory_info().rss)
        await asyncio.sleep(0.02)
    outcome.rounds += 1
    outcome.fired += stage.shim.disarm() > 0
    await asyncio.wait_for(pusher, 60)
    await asyncio.wait_for(push(link, writers, 400), 60)
    await link.channel.close()
    outcome.problems += await asyncio.to_thread(stage.verify, writers, 400)
    return lag_s, memory

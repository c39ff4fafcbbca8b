"""One machine, its network and a hub: what each part does when it is its turn."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from trackd import spool as files
from trackd.lane import Lane
from trackd_daemon.upload.hop import Answer
from trackd_proto import spool

from . import checks
from .clock import CLOCK
from .disk import SimDisk
from .hub import HubCrash, SimHub
from .processes import Agent, Courier, Link, make_session
from .trainers import SimOwner, Writer

_MOST_WRITERS = 4
_TARGET = spool.Target(
    mode="online", route="embedded", project="p", run_id="r", run_dir="", attempt="a", attempt_start_us=1, role="fork"
)
_START = {"project": "p", "run_id": "r", "attempt": "a", "attempt_start_us": 1}


class SpoolSpace:
    """The disk of the spool, as far as it can be full."""

    is_full = False
    refused = 0

    @classmethod
    def allocate(cls, descriptor: int, size: int) -> None:
        """As files._allocate."""
        if cls.is_full:
            cls.refused += 1
            raise OSError(28, "injected")
        _real_allocate(descriptor, size)


_real_allocate: Callable[[int, int], None] = files._allocate


class Machine:
    """Trainers, courier, agent and the way to the hub, each a step at a time."""

    def __init__(self, rng: Random, directory: Path) -> None:
        self.rng = rng
        self.spool = directory / "spool"
        self.wal = directory / "wal"
        self.fired: dict[str, int] = {}
        self.durable: dict[bytes, int] = {}
        """Ever called durable by the agent."""
        self.spool_quota = 1 << 30
        self.wal_quota = 0
        make_session(self.spool)
        self.wal.mkdir(mode=0o700)
        self.disk = SimDisk(Random(rng.random()))
        self.disk.reserve = self.wal / "reserve"
        self.disk.on_unlink = lambda path: checks.check_i5_gc(self, path)
        self.hub = SimHub()
        self.writers: list[Writer] = []
        self.courier: Courier | None = None
        self.agent: Agent | None = None
        self.near = Link()
        self.far = Link()
        self.is_far_open = False
        self.is_quiet = False
        self._changed_ns = 0
        self._late_near: deque[tuple[Any, Any]] = deque()
        self._seen_names: list[str] = []

    def count(self, what: str) -> None:
        """This fault fired."""
        if what:
            self.fired[what] = self.fired.get(what, 0) + 1

    # -- the trainers

    def new_writer(self) -> None:
        """A process, or a forked child, begins to log.

        Not on a full disk: what it keeps in memory then is promised to nobody.
        """
        if len(self.writers) < _MOST_WRITERS:
            lane = Lane(self.spool, _TARGET, _START, self.spool_quota)
            if not lane.is_in_memory:
                self.writers.append(Writer(lane))

    def log(self) -> None:
        """Some rows, a few of them interrupted or the last thing their process did."""
        writer = self.living()
        if writer is None:
            return self.new_writer()
        for _ in range(self.rng.randrange(1, 6)):
            fault = self.rng.choices(("", "interrupt", "kill"), (94, 5, 1))[0]
            self.count(fault)
            dropped = len(writer.dropped)
            writer.log(self.rng, fault)
            if len(writer.dropped) > dropped:
                self.count("row dropped")
            if writer.is_dead:
                return None
        return None

    def close_writer(self) -> None:
        """finish()."""
        if writer := self.living():
            writer.lane.close()
            writer.is_closed = True

    def living(self) -> Writer | None:
        """One that logs."""
        living = [w for w in self.writers if not w.is_dead and not w.is_closed]
        return self.rng.choice(living) if living else None

    # -- the courier

    def courier_round(self) -> None:
        """As Courier._round."""
        if self.courier is None:
            self.courier = Courier(self.spool, self._owner, lambda: False)
        courier = self.courier
        self._stamp()
        courier.look()
        if self.agent is None:
            self.start_agent()
        if self.agent is None:
            return
        if not courier.is_connected:
            self.near = Link(session=self.agent.sessions.open())
            courier.connected()
        courier.resume(self.agent)
        while request := courier.collect():
            self.near.requests.append(request)

    def _owner(self, writer_id: bytes) -> SimOwner:
        writer = next((w for w in self.writers if w.writer_id == writer_id), None)
        return SimOwner(lambda: writer is None or writer.is_dead)

    def _stamp(self) -> None:
        """The directory's time of change, by the simulated clock."""
        names = os.listdir(self.spool)  # noqa: PTH208 - ten times as fast
        if names != self._seen_names:
            self._seen_names = names
            self._changed_ns = CLOCK.file_ns()
        os.utime(self.spool, ns=(self._changed_ns, self._changed_ns))

    def courier_hears(self) -> None:
        """A reply of the agent arrives."""
        if self.near.replies and self.courier is not None:
            self.courier.sender._take(self.near.replies.popleft())

    def close_near(self) -> None:
        """The connection of courier and agent is over; requests on it may still be read by the agent, in order."""
        if self.agent is not None and self.near.session is not None:
            self.agent.sessions.close(self.near.session)
            requests = list(self.near.requests)
            for request in requests[: self.rng.randrange(len(requests) + 1)]:
                self._late_near.append((request, self.near.session))
        self.near = Link()

    def late_near(self) -> None:
        """The agent reads a request of a connection that is over."""
        if self.agent is not None and self._late_near and self.agent.ingest._has_room.is_set():
            self.count("late near request")
            self.agent.ingest._take(*self._late_near.popleft())

    # -- the agent

    def start_agent(self) -> None:
        """Recover and begin; may fail on a bad disk and is tried again."""
        with suppress(OSError):
            self.agent = Agent(self.wal, self.disk, self.durable, self.wal_quota)

    def agent_takes(self) -> None:
        """A request of the courier arrives."""
        if self.agent is None:
            return self.start_agent()
        session = self.near.session
        if session is None:
            return None
        if self.near.requests and self.agent.ingest._has_room.is_set():
            self.agent.ingest._take(self.near.requests.popleft(), session)
        if not session.is_idle():
            self.near.replies.append(session._reply(self.agent.ingest._mark))
        return None

    def log_writes(self) -> None:
        """One append."""
        if self.agent is not None:
            self.agent.write(1 << 16 if self.is_quiet else self.rng.choice((1, 300, 2000)))
            if self.agent.log.full_reason:
                self.count("log full")

    def log_syncs(self) -> None:
        """One sync."""
        if self.agent is not None:
            self.agent.sync()

    def agent_is_gone(self) -> None:
        """Connections end with it."""
        self.agent = None
        self.near = Link()
        self._late_near.clear()
        self.break_far_link()
        if self.courier is not None:
            self.courier.is_connected = False

    # -- the route to the hub

    def route_sends(self) -> None:
        """Connect if need be; the next request goes out."""
        if self.agent is None:
            return
        if not self.is_far_open:
            self.is_far_open = True
            expected = self.hub.expected(self.agent.outbox.waiting())
            self.agent.committed(self.agent.outbox.connected(expected))
        if request := self.agent.request():
            self.far.requests.append(request)

    def hub_takes(self) -> None:
        """A request arrives, is committed and answered."""
        if self.far.requests:
            try:
                self.far.replies.append(self.hub.commit(self.far.requests.popleft()))
            except HubCrash:
                self.count("hub crashed")
                self.break_far_link()

    def agent_hears(self) -> None:
        """An answer of the hub arrives."""
        if self.far.replies and self.agent is not None:
            answer: Answer = self.far.replies.popleft()
            if news := self.agent.outbox.take(answer):
                self.agent.committed(news)

    def break_far_link(self) -> None:
        """What was on it is gone."""
        self.far = Link()
        self.is_far_open = False

    def close(self) -> None:
        """Release what is held."""
        if self.agent is not None:
            self.agent.stop()
        self.disk.crash()
        if self.courier is not None:
            self.courier.kill()

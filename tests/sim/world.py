"""One history: two machines, a network, and a seed that decides what happens next."""

import logging
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from trackd import spool as files
from trackd.courier import session
from trackd.lane import Lane
from trackd_daemon.upload.hop import Answer
from trackd_daemon.wal import writer as log_writer
from trackd_proto import spool

from . import checks
from .disk import SimDisk
from .hub import HubCrash, SimHub
from .processes import Agent, Courier, Link, SimOwner, Writer, make_session

STEPS = 120
_MOST_WRITERS = 4
_DRAIN_ROUNDS = 400
_TARGET = spool.Target(
    mode="online", route="embedded", project="p", run_id="r", run_dir="", attempt="a", attempt_start_us=1, role="fork"
)
_START = {"project": "p", "run_id": "r", "attempt": "a", "attempt_start_us": 1}


class World:
    """Everything there is. `step` does one thing; `settle` ends all faults and lets everything arrive."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.rng = random.Random(seed)
        self.spool = directory / "spool"
        self.wal = directory / "wal"
        self.fired: dict[str, int] = {}
        self.durable: dict[bytes, int] = {}
        """Ever called durable by the agent."""
        self.promised_durable: dict[bytes, int] = {}
        """What stood in `durable` at the last power loss."""
        make_session(self.spool)
        self.wal.mkdir(mode=0o700)
        self.disk = SimDisk(random.Random(seed + 1))
        self.disk.on_unlink = lambda path: checks.check_i5_gc(self, path)
        self.hub = SimHub()
        self.writers: list[Writer] = []
        self.courier: Courier | None = None
        self.agent: Agent | None = None
        self.near = Link()
        self.far = Link()
        self.is_far_open = False
        self._late: deque[Any] = deque()
        self._is_quiet = False
        if self.rng.random() < 0.3:
            self.disk.sync_fails, self.disk.write_fails = 0.05, 0.03
        self._has_power_loss = self.rng.random() < 0.4
        self._actions = self._weights()
        self.new_writer()

    def _weights(self) -> list[tuple[Callable[[], None], int]]:
        actions: list[tuple[Callable[[], None], int]] = [
            (self.log, 30), (self.courier_round, 18), (self.agent_takes, 18), (self.courier_hears, 14),
            (self.log_writes, 14), (self.log_syncs, 10), (self.route_sends, 14), (self.hub_takes, 14),
            (self.agent_hears, 14), (self.late_request, 1), (self.new_writer, 1), (self.close_writer, 1),
            (self.kill_trainer, 1), (self.kill_courier, 2), (self.kill_agent, 2), (self.break_near, 2),
            (self.break_far, 2), (self.crash_hub, 2),
        ]  # fmt: skip
        if self._has_power_loss:
            actions.append((self.lose_power, 1))
        return actions

    def step(self) -> None:
        """One action, and the invariants."""
        choose, weights = zip(*self._actions, strict=True)
        (action,) = self.rng.choices(choose, weights)
        action()
        checks.check_i2_prefix(self.hub)
        checks.check_i4_levels(self)

    def settle(self) -> None:
        """No more faults; everything that lives works until nothing moves. Then the promises are due."""
        self._is_quiet = True
        self.disk.sync_fails = self.disk.write_fails = 0.0
        self.hub.crash_after = ""
        calm = 0
        for _ in range(_DRAIN_ROUNDS):
            before = self._progress()
            for action in (
                self.courier_round, self.agent_takes, self.log_writes, self.log_syncs, self.courier_hears,
                self.route_sends, self.hub_takes, self.agent_hears, self.courier_hears,
            ):  # fmt: skip
                action()
            calm = calm + 1 if self._progress() == before else 0
            if calm > 8:
                break
        checks.check_i4_levels(self)
        checks.check_end(self)

    def _progress(self) -> tuple[Any, ...]:
        hub = tuple(sorted(self.hub.series.next_seq.items()))
        return hub, len(self.near.requests), len(self.far.requests), len(list(self.spool.iterdir()))

    # -- the trainers

    def new_writer(self) -> None:
        """A process, or a forked child, begins to log."""
        if len(self.writers) < _MOST_WRITERS:
            self.writers.append(Writer(Lane(self.spool, _TARGET, _START, 1 << 30)))

    def log(self) -> None:
        """Some rows, a few of them interrupted or the last thing their process did."""
        writer = self._living()
        if writer is None:
            return self.new_writer()
        for _ in range(self.rng.randrange(1, 6)):
            fault = self.rng.choices(("", "interrupt", "kill"), (96, 3, 1))[0]
            self._count(fault)
            writer.log(self.rng, fault)
            if writer.is_dead:
                return None
        return None

    def close_writer(self) -> None:
        """finish()."""
        if writer := self._living():
            writer.lane.close()
            writer.is_closed = True

    def kill_trainer(self) -> None:
        """SIGKILL between two calls."""
        if writer := self._living():
            writer.is_dead = True
            self._count("trainer killed")

    def _living(self) -> Writer | None:
        living = [w for w in self.writers if not w.is_dead and not w.is_closed]
        return self.rng.choice(living) if living else None

    # -- the courier

    def courier_round(self) -> None:
        """As Courier._round."""
        if self.courier is None:
            self.courier = Courier(self.spool, self._owner, lambda: False)
        courier = self.courier
        courier.look()
        if self.agent is None:
            self.start_agent()
        if self.agent is None:
            return
        if not courier.is_connected:
            self._connect_near()
        courier.resume(self.agent)
        while request := courier.collect():
            self.near.requests.append(request)

    def _owner(self, writer_id: bytes) -> SimOwner:
        writer = next((w for w in self.writers if w.writer_id == writer_id), None)
        return SimOwner(lambda: writer is None or writer.is_dead)

    def _connect_near(self) -> None:
        assert self.agent is not None
        assert self.courier is not None
        self.near = Link(session=self.agent.sessions.open())
        self.courier.connected()

    def courier_hears(self) -> None:
        """A reply of the agent arrives."""
        if self.near.replies and self.courier is not None:
            self.courier.sender._take(self.near.replies.popleft())

    def kill_courier(self) -> None:
        """SIGKILL; a new one claims the session at its next turn."""
        if self.courier is not None:
            self._count("courier killed")
            self.courier.kill()
            self.courier = None
            self._close_near()

    def break_near(self) -> None:
        """The connection is lost with all that was on it."""
        if self.courier is not None and self.courier.is_connected:
            self._count("near link broken")
            self.courier.is_connected = False
            self._close_near()

    def _close_near(self) -> None:
        if self.agent is not None and self.near.session is not None:
            self.agent.sessions.close(self.near.session)
        self.near = Link()

    # -- the agent

    def start_agent(self) -> None:
        """Recover and begin; may fail on a bad disk and is tried again."""
        with suppress(OSError):
            self.agent = Agent(self.wal, self.disk, self.durable)

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
            self.agent.write(8 if self._is_quiet else self.rng.randrange(1, 4))

    def log_syncs(self) -> None:
        """One sync."""
        if self.agent is not None:
            self.agent.sync()

    def kill_agent(self) -> None:
        """SIGKILL."""
        if self.agent is not None:
            self._count("agent killed")
            self.agent.stop()
            self.disk.crash()
            self._agent_is_gone()

    def _agent_is_gone(self) -> None:
        self.agent = None
        self.near = Link()
        self._break_far()
        if self.courier is not None:
            self.courier.is_connected = False

    def lose_power(self) -> None:
        """The whole machine: of the spool any pages may be left, of the log what was synced and anything beyond."""
        self._count("power lost")
        for writer in self.writers:
            if not writer.may_lose:  # what is declared lost after a power loss becomes durable too
                self.promised_durable[writer.writer_id] = self.durable.get(writer.writer_id, 0)
            writer.is_dead = writer.may_lose = True
        if self.courier is not None:
            self.courier.kill()
            self.courier = None
        if self.agent is not None:
            self.agent.stop()
        self.disk.power_loss()
        self._agent_is_gone()
        for path in sorted(self.spool.glob("*.head")) + sorted(self.spool.glob("*.chunk")):
            if self.rng.random() < 0.3:
                path.unlink()
            elif path.suffix == ".chunk":
                data = bytearray(path.read_bytes())
                for page in range(0, len(data), 4096):
                    if self.rng.random() < 0.3:
                        data[page : page + 4096] = bytes(len(data[page : page + 4096]))
                path.write_bytes(data)

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
                self._count("hub crashed")
                self._break_far()

    def agent_hears(self) -> None:
        """An answer of the hub arrives."""
        if self.far.replies and self.agent is not None:
            answer: Answer = self.far.replies.popleft()
            if news := self.agent.outbox.take(answer):
                self.agent.committed(news)

    def crash_hub(self) -> None:
        """At the next commit, between its stores or before the answer."""
        self.hub.crash_after = self.rng.choice(("catalog", "series"))

    def break_far(self) -> None:
        """The connection to the hub is lost; now and then what was on it arrives later all the same."""
        if self.is_far_open:
            self._count("far link broken")
            self._late.extend(request for request in self.far.requests if self.rng.random() < 0.5)
            self._break_far()

    def _break_far(self) -> None:
        self.far = Link()
        self.is_far_open = False

    def late_request(self) -> None:
        """One of a connection that nobody holds any more."""
        if self._late:
            self._count("late request")
            with suppress(HubCrash):
                self.hub.commit(self._late.popleft())

    def _count(self, what: str) -> None:
        if what:
            self.fired[what] = self.fired.get(what, 0) + 1

    def close(self) -> None:
        """Release what is held."""
        if self.agent is not None:
            self.agent.stop()
        self.disk.crash()
        if self.courier is not None:
            self.courier.kill()


@contextmanager
def small() -> Iterator[None]:
    """Chunks and segments of a few KiB, so that a short history fills many of them."""
    logger = logging.getLogger("trackd")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # losses after a power loss are what is being simulated
    with (
        mock.patch.object(spool, "CHUNK_SIZES", (4096, 8192, 16384)),
        mock.patch.object(log_writer, "_RESERVE_BYTES", 4096),
        mock.patch.object(session, "_note_logged", lambda _lane: None),
        mock.patch.object(files, "hold_alive", lambda _directory: 0),  # held as long as this process lives
    ):
        yield
    logger.setLevel(level)


def run(seed: int, steps: int = STEPS) -> dict[str, int]:
    """A whole history; the faults that fired. Raises Violation (or whatever broke). Within `small()`."""
    directory = Path(tempfile.mkdtemp(prefix="trackd-sim-", dir=_fast_place()))
    directory.chmod(0o700)
    world = World(seed, directory)
    try:
        for _ in range(steps):
            world.step()
        world.settle()
        return world.fired | world.disk.fired
    finally:
        world.close()
        shutil.rmtree(directory, ignore_errors=True)


def _fast_place() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None

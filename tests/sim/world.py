"""One history: a machine, a hub, and a seed that decides what happens next and what fails."""

import itertools
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from trackd import chunks as chunks_module
from trackd import lane as lane_module
from trackd import spool as files
from trackd.courier import lanes as lanes_module
from trackd.courier import sender as sender_module
from trackd.courier import session
from trackd_daemon.ingest import agent as agent_module
from trackd_daemon.wal import writer as log_writer
from trackd_daemon.wal.quota import Quota
from trackd_proto import spool

from . import checks
from .clock import CLOCK
from .hub import HubCrash
from .machine import Machine, SpoolSpace
from .trainers import SimOwner

STEPS = 120
_DRAIN_ROUNDS = 400
_CALM_ROUNDS = 7
"""A frame that is not whole is looked at five times before it counts as damaged."""
_PACES_S = ((0.0, 0.001, 0.02, 0.3), (0.0, 0.0005))
_DAY_S = 86_400.0


class World(Machine):
    """The machine and what befalls it. `step` does one thing; `settle` ends all faults and lets everything arrive."""

    def __init__(self, seed: int, directory: Path) -> None:
        rng = Random(seed)
        CLOCK.begin(Random(seed + 1))
        SpoolSpace.is_full = False
        super().__init__(rng, directory)
        self.promised_durable: dict[bytes, int] = {}
        """What stood in `durable` at the last power loss."""
        self.is_restored = False
        """The hub has gone back to a backup."""
        self._late: deque[Any] = deque()
        self._pace_s = rng.choice(_PACES_S)
        if rng.random() < 0.3:
            self.disk.sync_fails, self.disk.write_fails = 0.05, 0.03
        if rng.random() < 0.2:
            self.spool_quota = 8192
        if rng.random() < 0.15:
            self.wal_quota = rng.randrange(3000, 9000)
        self._actions, weights = zip(*self._weights(), strict=True)
        if rng.random() < 0.5:  # a history with a temper: some parts are slow, some faults frequent
            weights = tuple(weight * rng.choice((0.1, 0.5, 1, 3)) for weight in weights)
        self._weights_so_far = list(itertools.accumulate(weights))
        self.new_writer()

    def _weights(self) -> list[tuple[Callable[[], None], float]]:
        actions: list[tuple[Callable[[], None], float]] = [
            (self.log, 30), (self.courier_round, 18), (self.agent_takes, 18), (self.courier_hears, 14),
            (self.log_writes, 14), (self.log_syncs, 10), (self.route_sends, 14), (self.hub_takes, 14),
            (self.agent_hears, 14), (self.late_request, 3), (self.late_near, 2), (self.new_writer, 1),
            (self.close_writer, 1), (self.kill_trainer, 1), (self.kill_courier, 2), (self.kill_agent, 2),
            (self.end_agent, 0.5), (self.break_near, 2), (self.break_far, 2), (self.crash_hub, 2),
        ]  # fmt: skip
        if self.rng.random() < 0.4:
            actions.append((self.lose_power, 1))
        if self.rng.random() < 0.3:
            actions += [(self.fill_disk, 4), (self.free_disk, 6)]
        if self.rng.random() < 0.25:
            actions += [(self.hub.back_up, 3), (self.restore_hub, 3)]
        if self.rng.random() < 0.3:
            actions.append((self.jump_clock, 2))
        return actions

    def step(self) -> None:
        """One action, and the invariants."""
        CLOCK.advance(self.rng.choice(self._pace_s))
        (action,) = self.rng.choices(self._actions, cum_weights=self._weights_so_far)
        action()
        checks.check_i2_prefix(self.hub)
        checks.check_i4_levels(self)

    def settle(self) -> None:
        """No more faults; everything that lives works until nothing moves. Then the promises are due."""
        self.is_quiet = True
        self.disk.sync_fails = self.disk.write_fails = 0.0
        self.hub.crash_after = ""
        self._drain()
        if self.agent is not None and self.courier is not None and not SpoolSpace.is_full:
            checks.check_passed(self)  # a full log does not stand between a spool and a hub that is up
        self.free_disk()
        self.wal_quota = 0
        if self.agent is not None:
            self.agent.log._quota = Quota(0, 1)
        self._drain()
        checks.check_i2_prefix(self.hub)
        checks.check_end(self)

    def _drain(self) -> None:
        calm = 0
        for _ in range(_DRAIN_ROUNDS):
            before = self._progress()
            CLOCK.advance(0.2)
            for writer in self.writers:
                if not writer.is_dead:
                    writer.lane._end_loss()  # as everybody who waits for a lane
            for action in (
                self.courier_round, self.agent_takes, self.log_writes, self.log_syncs, self.courier_hears,
                self.route_sends, self.hub_takes, self.agent_hears, self.courier_hears,
            ):  # fmt: skip
                action()
            calm = calm + 1 if self._progress() == before else 0
            if calm > _CALM_ROUNDS:
                break
        checks.check_i4_levels(self)

    def _progress(self) -> tuple[Any, ...]:
        hub = tuple(sorted(self.hub.series.next_seq.items()))
        files_there = len(os.listdir(self.spool))  # noqa: PTH208 - ten times as fast
        return hub, len(self.near.requests), len(self.far.requests), files_there

    # -- what befalls it

    def kill_trainer(self) -> None:
        """SIGKILL between two calls."""
        if writer := self.living():
            writer.is_dead = True
            self.count("trainer killed")

    def kill_courier(self) -> None:
        """SIGKILL; a new one claims the session at its next turn."""
        if self.courier is not None:
            self.count("courier killed")
            self.courier.kill()
            self.courier = None
            self.close_near()

    def break_near(self) -> None:
        """The connection is lost with all that was on it."""
        if self.courier is not None and self.courier.is_connected:
            self.count("near link broken")
            self.courier.is_connected = False
            self.close_near()

    def kill_agent(self) -> None:
        """SIGKILL."""
        if self.agent is not None:
            self.count("agent killed")
            self._stop_agent()

    def end_agent(self) -> None:
        """It is told to end, and does so in order."""
        if self.agent is not None:
            self.count("agent ended")
            self.agent.end()
            self._stop_agent()

    def _stop_agent(self) -> None:
        assert self.agent is not None
        self.agent.stop()
        self.disk.crash()
        self.agent_is_gone()

    def lose_power(self) -> None:
        """The whole machine: of the spool any pages may be left, of the log what was synced and anything beyond."""
        self.count("power lost")
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
        self.agent_is_gone()
        for path in sorted(self.spool.glob("*.head")) + sorted(self.spool.glob("*.chunk")):
            if self.rng.random() < 0.3:
                path.unlink()
            elif path.suffix == ".chunk":
                data = bytearray(path.read_bytes())
                for page in range(0, len(data), 4096):
                    if self.rng.random() < 0.3:
                        data[page : page + 4096] = bytes(len(data[page : page + 4096]))
                path.write_bytes(data)

    def crash_hub(self) -> None:
        """At the next commit, between its stores or before the answer."""
        self.hub.crash_after = self.rng.choice(("catalog", "series"))

    def restore_hub(self) -> None:
        """From a backup: what it has committed since is gone."""
        if self.hub.restore():
            self.count("hub restored")
            self.is_restored = True
            if self.rng.random() < 0.5:  # else somebody put the files back under a hub that went on
                self.break_far_link()

    def break_far(self) -> None:
        """The connection to the hub is lost; now and then what was on it arrives later all the same."""
        if self.is_far_open:
            self.count("far link broken")
            self._late.extend(request for request in self.far.requests if self.rng.random() < 0.5)
            self.break_far_link()

    def late_request(self) -> None:
        """One of a connection that nobody holds any more."""
        if self._late:
            self.count("late request")
            with suppress(HubCrash):
                self.hub.commit(self._late.popleft())

    def fill_disk(self) -> None:
        """Somebody else takes the space: of the log's disk, and now and then of the spool's."""
        self.count("disk filled")
        self.disk.capacity = None
        held = (1 << 62) - self.disk.room()
        self.disk.capacity = held + self.rng.choice((0, 200, 1500))
        SpoolSpace.is_full = self.rng.random() < 0.7

    def free_disk(self) -> None:
        """There is space again."""
        self.disk.capacity = None
        SpoolSpace.is_full = False

    def jump_clock(self) -> None:
        """Somebody sets the wall clock."""
        self.count("clock set")
        CLOCK.jump(self.rng.choice((-3 * _DAY_S, -3600.0, -0.5, 0.5, 3600.0, 3 * _DAY_S)))


@contextmanager
def small() -> Iterator[None]:
    """Chunks and segments of a few KiB, so that a short history fills many of them; simulated time and chance."""
    logger = logging.getLogger("trackd")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # losses after a power loss are what is being simulated
    with ExitStack() as stack:
        for owner, name, value in (
            (spool, "CHUNK_SIZES", (4096, 8192, 16384)),
            (log_writer, "_RESERVE_BYTES", 4096),
            (session, "_note_logged", lambda _lane: None),
            (session, "OomWatch", lambda _pid: None),
            (session, "Owner", lambda *_: SimOwner(lambda: False)),
            (lanes_module, "Owner", lambda *_: SimOwner(lambda: False)),
            (files, "hold_alive", lambda _directory: 0),  # held as long as this process lives
            (files, "_allocate", SpoolSpace.allocate),
            (lane_module, "_monotonic_ns", CLOCK.monotonic_ns),
            (os, "urandom", CLOCK.urandom),
            *(
                (module, "time", CLOCK)
                for module in (
                    lane_module,
                    chunks_module,
                    lanes_module,
                    session,
                    sender_module,
                    log_writer,
                    agent_module,
                )
            ),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
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

"""T1: SIGKILL of every subset of trainer, courier, agent and hub, in every phase, while trainers log."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trackd_proto import spool
from trackd_proto.local.hub_client import HubError

from support import serving
from support.fleet import Fleet, listed

PHASES: Final = ("idle", "logging", "rolling", "GC", "uploading", "recovering", "starting")
_PATIENCE_S: Final = 2.0
"""How long a phase is waited for; a kill that came without it is counted as one of "logging"."""
_IDLE_PATIENCE_S: Final = 8.0
"""A hub in the daemon starts after it, and commits then."""
_BACK_S: Final = 30.0
_NEXT: Final = "import trackd; trackd.init(project='kills-next').finish()"


@dataclass
class Outcome:
    """What came of a storm."""

    kills: int = 0
    """Moments at which one process or several together were killed."""
    processes: Counter[str] = field(default_factory=Counter)
    """Processes that died of it, by what they were."""
    phases: Counter[str] = field(default_factory=Counter)
    subsets: Counter[str] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)
    """From the kill of an agent until another one listens."""
    drained_s: list[float] = field(default_factory=list)
    """From the end of faults until the hub had all that had been logged by then."""
    rows: int = 0
    problems: list[str] = field(default_factory=list)


def subsets(*, has_hub: bool) -> list[tuple[str, ...]]:
    """All non-empty sets of victims."""
    all_of = ("trainer", "courier", "agent", "hub") if has_hub else ("trainer", "courier", "agent")
    return [chosen for size in range(1, len(all_of) + 1) for chosen in itertools.combinations(all_of, size)]


class Storm:
    """Kills until `kills` is reached, with a calm in between now and then."""

    def __init__(self, fleet: Fleet, *, has_hub: bool, calm_every: int = 20) -> None:
        self.outcome = Outcome()
        self._fleet = fleet
        self._calm_every = calm_every
        self._plan = self._combinations(subsets(has_hub=has_hub))
        self._waits: dict[str, Callable[[], bool]] = {
            "idle": self._until_idle, "logging": self._at_random, "rolling": self._until_rolled, "GC": self._until_gc,
            "uploading": self._until_committed, "recovering": self._until_recovering, "starting": self._until_starting,
        }  # fmt: skip

    def run(self, kills: int) -> Outcome:
        """All of it; the rows are compared when everybody is dead."""
        fleet, outcome = self._fleet, self.outcome
        fleet.tend()
        some = min(3, len(fleet.trainers))
        serving.wait_for(lambda: len(fleet.oracle.returned()) >= some and fleet.epoch() > 0, "trainers that log", 60)
        while outcome.kills < kills and not outcome.problems:
            for _ in range(self._calm_every):
                if outcome.kills < kills:
                    self._strike(*next(self._plan))
            self._calm()
        self._end()
        return outcome

    def _combinations(self, chosen: list[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
        while True:
            combinations = list(itertools.product(chosen, PHASES))
            self._fleet.rng.shuffle(combinations)
            yield from combinations

    def _strike(self, victims: tuple[str, ...], phase: str) -> None:
        fleet, outcome = self._fleet, self.outcome
        fleet.tend()
        # A phase of the agent that lasts milliseconds: looked for in the instant after it was killed.
        is_reached = self._waits[phase]()
        trainer = fleet.choose()
        died = {
            "hub": "hub" in victims and fleet.kill_hub(),
            "agent": "agent" in victims and fleet.kill_agent(),
            "courier": "courier" in victims and fleet.kill_courier(trainer),
            "trainer": "trainer" in victims and fleet.kill_trainer(trainer),
        }
        killed_at = time.monotonic()
        fleet.pause.unlink(missing_ok=True)
        outcome.processes.update(name for name, is_dead in died.items() if is_dead)
        if any(died.values()):
            outcome.kills += 1
            outcome.phases[phase if is_reached else "logging"] += 1
            outcome.subsets[" + ".join(name for name in victims if died[name])] += 1
        if died["agent"] or phase in ("recovering", "starting"):
            self._until_back(killed_at)

    def _until_back(self, killed_at: float) -> None:
        while not self._fleet.epoch():
            self._fleet.tend()
            if time.monotonic() - killed_at > _BACK_S:
                said = self._fleet.where.log.read_text(errors="replace").splitlines()[-8:]
                self.outcome.problems.append(f"no daemon for {_BACK_S:.0f} s after a kill; its log ends: {said}")
                break
            time.sleep(0.01)
        self.outcome.back_s.append(time.monotonic() - killed_at)

    def _calm(self) -> None:
        took_s, problems = self._fleet.wait_until_drained(60)
        self.outcome.drained_s.append(took_s)
        self.outcome.problems += problems

    def _end(self) -> None:
        """All trainers killed; another process of this user runs; everything that was logged has to come."""
        fleet = self._fleet
        for trainer in fleet.trainers:
            if trainer.process.poll() is None:
                fleet.kill_trainer(trainer)
        subprocess.run([sys.executable, "-c", _NEXT], env=fleet.environment, cwd=fleet.home, check=True, timeout=60)
        deadline = time.monotonic() + 60
        while True:
            fleet.tend_hub()
            try:
                self.outcome.rows, problems = fleet.verdict()
            except HubError as error:
                problems = [str(error)]
            if not problems or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.outcome.problems += problems

    # -- the phases: each returns whether it came

    def _poll(self, is_so: Callable[[], bool], patience_s: float = _PATIENCE_S) -> bool:
        deadline = time.monotonic() + patience_s
        while not is_so():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True

    def _at_random(self) -> bool:
        time.sleep(self._fleet.rng.random() * 0.1)
        return True

    def _until_idle(self) -> bool:
        self._fleet.pause.touch()

        def nothing_is_left() -> bool:
            heads = [h for t in self._fleet.trainers if t.process.poll() is None for h in self._fleet.heads(t)]
            return all(h[spool.COMMITTED] >= h[spool.PUBLISHED] for h in heads)

        return self._poll(nothing_is_left, _IDLE_PATIENCE_S)

    def _names(self) -> set[str]:
        where = self._fleet.where
        return {path.name for path in [*listed(where.wal, "*.wal"), *listed(where.spool, "*/*.chunk")]}

    def _until_rolled(self) -> bool:
        """A segment or a chunk has been begun this moment."""
        known = self._names()
        return self._poll(lambda: bool(self._names() - known))

    def _until_gc(self) -> bool:
        """A segment or a chunk has been removed this moment."""
        known = self._names()
        return self._poll(lambda: bool(known - self._names()))

    def _until_committed(self) -> bool:
        """A trainer has seen a commit this moment: what others have sent is on its way."""

        def committed() -> int:
            living = [trainer for trainer in self._fleet.trainers if trainer.process.poll() is None]
            return sum(head[spool.COMMITTED] for trainer in living for head in self._fleet.heads(trainer))

        before = committed()
        return self._poll(lambda: committed() > before)

    def _kill_agent_first(self) -> None:
        if self._fleet.kill_agent():
            self.outcome.kills += 1
            self.outcome.processes["agent"] += 1
            self.outcome.phases["logging"] += 1
            self.outcome.subsets["agent"] += 1

    def _until_starting(self) -> bool:
        """A daemon has been exec'd and does not own the directory yet."""
        self._kill_agent_first()
        return self._poll(lambda: bool(self._fleet.starting()))

    def _until_recovering(self) -> bool:
        """A daemon owns the directory and does not listen yet."""
        self._kill_agent_first()
        return self._poll(lambda: self._fleet.owner() > 0 and not self._fleet.epoch())


def storm(directory: Path, kills: int, *, has_hub: bool, seed: int, long: int = 3, calm_every: int = 20) -> Outcome:
    """Run one in this directory. The outcome is to be judged by `shortfalls`."""
    fleet = Fleet(directory, has_hub=has_hub, rng=random.Random(seed), long=long)
    try:
        return Storm(fleet, has_hub=has_hub, calm_every=calm_every).run(kills)
    finally:
        fleet.close()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of them does not exceed; 0.0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0

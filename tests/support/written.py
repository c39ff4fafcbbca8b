"""What the SDK has written into the spools of a home, read without a courier or daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackd.courier.lanes import SpoolLane
from trackd_proto import batch, records, spool

PRELUDE = """
import trackd, trackd.finishing
from trackd.session import Session
Session.launch_courier = lambda self: None
trackd.finishing._PATIENCE_S = 0.01
"""
"""First lines of a program whose records stay in the spool: nobody is started that would take them."""


@dataclass
class Written:
    """The records of all writers of one run."""

    target: spool.Target
    starts: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    updates: list[dict[str, Any]] = field(default_factory=list)
    exits: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    closed: int = 0

    def add(self, kind: int, x: int, body: dict[str, Any]) -> None:
        if kind in (records.ROW, records.ROW_ORDINAL):
            self.rows.append((x, body))
        elif kind == records.CONFIG:
            self.config |= body
        elif kind == records.SUMMARY:
            self.summary |= body["set"]
        else:
            {records.START: self.starts, records.EXIT: self.exits, records.UPDATE: self.updates}[kind].append(body)

    @property
    def state(self) -> str:
        """Of the last EXIT record."""
        return str(self.exits[-1]["state"]) if self.exits else "running"

    @property
    def main(self) -> dict[str, Any]:
        """The main writer's START."""
        (start,) = [start for start in self.starts if start["writer"]["role"] == "main"]
        return start


def runs(home: Path) -> dict[str, Written]:
    """Run id → what was written, in the order of time."""
    found: dict[str, Written] = {}
    everything = []
    for head in sorted(home.glob("*/spool/*/*.head")):
        lane = SpoolLane(head)
        run = found.setdefault(lane.target.run_id, Written(lane.target))
        with head.open("rb") as file, memoryview(file.read()) as view, view.cast("Q") as words:
            run.refused += words[spool.REFUSED]
            run.closed += words[spool.CLOSED]
        while item := lane.next_item():
            everything += [(record[1], run, record) for record in batch.decode_all(item.data, item.count)]
        lane.close()
    for _, run, (kind, _, x, body) in sorted(everything, key=lambda each: each[0]):
        run.add(kind, x, body)
    return found


def only(home: Path) -> Written:
    """The one run of a home."""
    (run,) = runs(home).values()
    return run

"""Displayed steps. Pure.

A row logged without a step stores its ordinal in (attempt, writer). Its displayed step is base(attempt) + ordinal;
base is 0 for the first attempt that has rows (attempts in order of their start), for a later one it is one more than
the greatest displayed step of all before it. It is resolved when read, so that no answer depends on which attempt's
data arrived first.

A *lane* is one writer's rows of one kind: lane_no = writer_no * 4 + index of the kind.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from trackd_proto import records

_LANE_KINDS: Final = {records.ROW: 0, records.ROW_ORDINAL: 1, records.SYSTEM: 2}
SYSTEM_LANE: Final = 2
"""lane_no % 4 of system metrics: tells the streams apart without a join with the keys, which the database would
begin at the thousands of keys of other runs."""
_BY_INDEX: Final = {index: kind for kind, index in _LANE_KINDS.items()}


def lane_number(writer_no: int, kind: int) -> int:
    """The lane of this writer's rows of this kind."""
    return writer_no * 4 + _LANE_KINDS[kind]


def lane_kind(lane_no: int) -> int:
    """records.ROW, ROW_ORDINAL or SYSTEM."""
    return _BY_INDEX[lane_no % 4]


def lane_writer(lane_no: int) -> int:
    """writer_no of a lane."""
    return lane_no // 4


@dataclass(frozen=True, slots=True)
class Lane:
    """One writer's rows of one kind, as far as steps are concerned."""

    lane_no: int
    attempt: tuple[int, str]
    """(start_us, attempt id): attempts in this order."""
    start_us: int
    """First part of the writer's order key."""
    writer_id: bytes
    rows: int
    min_step: int
    """Smallest stored step, ordinal, or for SYSTEM time in microseconds."""
    max_step: int
    min_time: int
    max_time: int


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes of a run with what must be added to their stored steps."""

    lanes: Mapping[int, Lane]
    offsets: Mapping[int, int]

    @property
    def last_step(self) -> int | None:
        """Greatest displayed step of history rows."""
        tops = [lane.max_step + self.offsets[no] for no, lane in self.lanes.items() if lane_kind(no) != records.SYSTEM]
        return max(tops, default=None)

    def ranks(self) -> dict[int, int]:
        """Order of the lanes by the parts of the order key that do not change within a writer: attempt start."""
        starts = sorted({lane.start_us for lane in self.lanes.values()})
        rank = {start: index for index, start in enumerate(starts)}
        return {no: rank[lane.start_us] for no, lane in self.lanes.items()}

    def writer_ranks(self) -> dict[int, int]:
        """Order of the lanes by writer id."""
        ids = sorted({lane.writer_id for lane in self.lanes.values()})
        rank = {writer: index for index, writer in enumerate(ids)}
        return {no: rank[lane.writer_id] for no, lane in self.lanes.items()}


def resolve(lanes: Iterable[Lane]) -> Lanes:
    """Give every lane its offset."""
    known = {lane.lane_no: lane for lane in lanes}
    attempts: dict[tuple[int, str], list[Lane]] = {}
    for lane in known.values():
        attempts.setdefault(lane.attempt, []).append(lane)
    offsets: dict[int, int] = {}
    top: int | None = None
    for attempt in sorted(attempts):
        base = 0 if top is None else top + 1
        for lane in attempts[attempt]:
            kind = lane_kind(lane.lane_no)
            offsets[lane.lane_no] = base if kind == records.ROW_ORDINAL else 0
            if kind != records.SYSTEM:
                reached = lane.max_step + offsets[lane.lane_no]
                top = reached if top is None else max(top, reached)
    return Lanes(known, offsets)

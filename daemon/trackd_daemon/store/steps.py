"""Displayed steps. Pure.

A row logged without a step stores its ordinal in (attempt, writer). Its displayed step is base(attempt) + ordinal;
base is 0 for the first attempt that has rows (attempts in order of their start), for a later one it is one more than
the greatest displayed step of all before it. It is resolved when read, so that no answer depends on which attempt's
data arrived first.

Where a run was killed and began again from an older checkpoint, two attempts have rows at the same steps. From the
first step of the later one on, the rows of the earlier one are *superseded*: not displayed, and there to be read when
that attempt is asked for. Only an attempt that was over when the later one began is superseded: its last row is
older. Attempts beside each other (the processes of one job that share an id) are displayed together.

A *lane* is one writer's rows of one kind: lane_no = writer_no * 4 + index of the kind.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    cuts: Mapping[int, int] = field(default_factory=dict)
    """Lane -> the first *stored* step that is superseded, for those that have such."""
    is_partial: bool = False
    """Whether the run has other lanes than these."""

    @property
    def last_step(self) -> int | None:
        """Greatest displayed step of history rows (where rows are superseded: at least that, and below their first)."""
        tops = [shown[1] for no in self.lanes if lane_kind(no) != records.SYSTEM and (shown := self.shown(no))]
        return max(tops, default=None)

    def shown(self, lane_no: int) -> tuple[int, int] | None:
        """Least and greatest displayed step of a lane, inclusive; None if all of it is superseded."""
        lane, offset = self.lanes[lane_no], self.offsets[lane_no]
        high = self.clipped(lane_no, lane.max_step)
        return (lane.min_step + offset, high + offset) if lane.min_step <= high else None

    def clipped(self, lane_no: int, high: int) -> int:
        """The greatest stored step up to `high` that may be displayed."""
        cut = self.cuts.get(lane_no)
        return high if cut is None else min(high, cut - 1)

    def condition(self) -> str:
        """SQL over the columns `lane` and `step`: rows that are displayed. "" if all are."""
        if not self.cuts and not self.is_partial:
            return ""
        whole = [no for no in self.lanes if no not in self.cuts]
        parts = [f"lane IN ({', '.join(map(str, whole))})"] if whole else []
        parts += [f"(lane = {no} AND step < {cut})" for no, cut in self.cuts.items()]
        return f"({' OR '.join(parts) or 'false'})"

    def of_attempt(self, attempt: tuple[int, str] | None) -> "Lanes":
        """One attempt alone, with everything that it has; None: no lane at all."""
        lanes = {no: lane for no, lane in self.lanes.items() if lane.attempt == attempt}
        return Lanes(lanes, {no: self.offsets[no] for no in lanes}, {}, is_partial=True)

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
    tops: dict[int, int] = {}
    """Greatest displayed step of each lane of history so far."""
    first_hidden: dict[int, int] = {}
    """Displayed step from which on a lane is superseded."""
    for attempt in sorted(attempts):
        base = max(tops.values()) + 1 if tops else 0
        history = []
        for lane in attempts[attempt]:
            kind = lane_kind(lane.lane_no)
            offsets[lane.lane_no] = base if kind == records.ROW_ORDINAL else 0
            if kind != records.SYSTEM:
                history.append(lane)
        if not history:
            continue
        first = min(lane.min_step + offsets[lane.lane_no] for lane in history)
        ended = _ended_before(attempts, attempt)
        for no in [no for no, top in tops.items() if top >= first and known[no].attempt in ended]:
            first_hidden[no] = first
            tops[no] = first - 1
            if known[no].min_step + offsets[no] >= first:
                del tops[no]
        tops |= {lane.lane_no: lane.max_step + offsets[lane.lane_no] for lane in history}
    return Lanes(known, offsets, {no: step - offsets[no] for no, step in first_hidden.items()})


def _ended_before(attempts: Mapping[tuple[int, str], Iterable[Lane]], later: tuple[int, str]) -> set[tuple[int, str]]:
    """Attempts that logged their last row before this one began."""
    return {
        attempt
        for attempt, lanes in attempts.items()
        if attempt < later
        and max((lane.max_time for lane in lanes if lane_kind(lane.lane_no) != records.SYSTEM), default=0) < later[0]
    }

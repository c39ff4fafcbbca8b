"""Displayed steps. Pure.

A row logged without a step stores its ordinal in (attempt, writer). Its displayed step is base(attempt) + ordinal;
base is 0 for the first attempt that has rows (attempts in order of their start), for a later one it is one more than
the greatest displayed step of all before it. It is resolved when read, so that no answer depends on which attempt's
data arrived first.

Where a run was killed and began again from an older checkpoint, two attempts have rows at the same steps. From the
first step of the later one on, the rows of the earlier one are *superseded*: not displayed, and there to be read when
that attempt is asked for. Only an attempt that was over when the later one began is superseded: its last row is
older. Attempts beside each other (the processes of one job that share an id) are displayed together.

An attempt may say where it begins (`Branch`): behind a step of its own run (a *rewind*: everything behind that step is
superseded, whether or not the attempt has rows already) or of another one (a *fork*: that run's history up to the step
stands before the attempt's own, as if it were an earlier attempt that is over). Its base is the step behind.

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
    run_no: int = 0
    """The run whose rows these are: in a fork also its parent."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes of a run with what must be added to their stored steps."""

    lanes: Mapping[int, Lane]
    offsets: Mapping[int, int]
    cuts: Mapping[int, int] = field(default_factory=dict)
    """Lane -> the first *stored* step that is superseded, for those that have such."""
    is_partial: bool = False
    """Whether the runs have other lanes than these."""

    @property
    def runs(self) -> tuple[int, ...]:
        """Numbers of the runs that these lanes are of, ascending."""
        return tuple(sorted({lane.run_no for lane in self.lanes.values()}))

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
        whole = sorted(no for no in self.lanes if no not in self.cuts)
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


@dataclass(frozen=True, slots=True)
class Branch:
    """Where an attempt says that it begins."""

    step: int
    """The last step that stands before it."""
    parent: str | None = None
    """Id of the run that it is a fork of; None: it rewinds its own."""
    inherited: Lanes | None = None
    """Of a fork: the parent's lanes; None while nothing of the parent has arrived."""

    @property
    def place(self) -> tuple[str | None, int]:
        """What two attempts that begin at the same place have in common."""
        return self.parent, self.step


Attempt = tuple[int, str]
_NO_BRANCHES: Final[Mapping[Attempt, Branch]] = {}


def resolve(lanes: Iterable[Lane], branches: Mapping[Attempt, Branch] = _NO_BRANCHES) -> Lanes:
    """Give every lane its offset, and its end where later attempts go on before it."""
    attempts: dict[Attempt, list[Lane]] = {attempt: [] for attempt in branches}
    for lane in lanes:
        attempts.setdefault(lane.attempt, []).append(lane)
    made = _Resolving(branches)
    for attempt in sorted(attempts):
        made.add(attempt, attempts[attempt], _ended_before(attempts, attempt))
    return made.lanes()


class _Resolving:
    """Attempts in the order of their start, one after the other."""

    def __init__(self, branches: Mapping[Attempt, Branch]) -> None:
        self._branches = branches
        self._known: dict[int, Lane] = {}
        self._offsets: dict[int, int] = {}
        self._tops: dict[int, int] = {}
        """Greatest displayed step of each lane of history so far."""
        self._first_hidden: dict[int, int] = {}
        """Displayed step from which on a lane is superseded."""
        self._inherited: set[int] = set()
        """Lanes of a parent."""
        self._fork: tuple[str | None, int] | None = None

    def add(self, attempt: Attempt, lanes: Iterable[Lane], ended: set[Attempt]) -> None:
        """An attempt that began after all before; `ended` are those that were over by then."""
        branch = self._branches.get(attempt)
        if branch is not None:
            self._begin_at(branch, ended)
        base = branch.step + 1 if branch is not None else max(self._tops.values(), default=-1) + 1
        tops = {}
        first = None
        for lane in lanes:
            kind = lane_kind(lane.lane_no)
            self._known[lane.lane_no] = lane
            offset = self._offsets[lane.lane_no] = base if kind == records.ROW_ORDINAL else 0
            if kind != records.SYSTEM:
                tops[lane.lane_no] = lane.max_step + offset
                first = lane.min_step + offset if first is None else min(first, lane.min_step + offset)
        if first is not None:
            for no in list(self._tops):
                if no in self._inherited or self._known[no].attempt in ended:
                    self._hide(no, first)
        self._tops |= tops

    def _begin_at(self, branch: Branch, ended: set[Attempt]) -> None:
        is_other_fork = branch.parent is not None and branch.place != self._fork
        for no in list(self._tops):
            before = self._known[no].attempt
            place = self._branches[before].place if before in self._branches else None
            if no in self._inherited or before in ended or place != branch.place:
                self._hide(no, self._least(no) if is_other_fork else branch.step + 1)
        if is_other_fork:
            self._fork = branch.place
            for no in self._inherited:
                del self._known[no], self._offsets[no]
                self._first_hidden.pop(no, None)
            self._inherited.clear()
            if branch.inherited is not None:
                self._inherit(branch.inherited, branch.step + 1)

    def _inherit(self, parent: Lanes, first_hidden: int) -> None:
        for no, lane in parent.lanes.items():
            shown = None if lane_kind(no) == records.SYSTEM else parent.shown(no)
            if shown is None or shown[0] >= first_hidden:
                continue
            self._inherited.add(no)
            self._known[no], self._offsets[no], self._tops[no] = lane, parent.offsets[no], shown[1]
            if no in parent.cuts:
                self._first_hidden[no] = parent.cuts[no] + parent.offsets[no]
            self._hide(no, first_hidden)

    def _least(self, no: int) -> int:
        return self._known[no].min_step + self._offsets[no]

    def _hide(self, no: int, first: int) -> None:
        """A lane's rows from this displayed step on."""
        if self._tops[no] >= first:
            self._first_hidden[no] = first
            self._tops[no] = first - 1
            if self._least(no) >= first:
                del self._tops[no]

    def lanes(self) -> Lanes:
        """What came of it."""
        cuts = {no: step - self._offsets[no] for no, step in self._first_hidden.items()}
        return Lanes(self._known, self._offsets, cuts, is_partial=bool(self._inherited))


def _ended_before(attempts: Mapping[Attempt, Iterable[Lane]], later: Attempt) -> set[Attempt]:
    """Attempts that logged their last row before this one began."""
    return {
        attempt
        for attempt, lanes in attempts.items()
        if attempt < later
        and max((lane.max_time for lane in lanes if lane_kind(lane.lane_no) != records.SYSTEM), default=0) < later[0]
    }

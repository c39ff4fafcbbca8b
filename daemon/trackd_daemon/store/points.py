"""Points of one series in the order they are shown: by x, and where equal by order key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trackd_daemon.store import decode, steps
from trackd_daemon.store.series import Snapshot

US: Final = 1e-6
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """One series, sorted."""

    x: Floats
    v: Floats


def offsets_of(lane: NDArray[np.int32], offsets: dict[int, int]) -> Ints | int:
    """What to add to each stored step."""
    if not any(offsets.values()):
        return 0
    if len(offsets) == 1:
        return next(iter(offsets.values()))
    return lookup(lane, offsets)


def lookup(lane: NDArray[np.int32], table: dict[int, int]) -> Ints:
    """table[lane] for each lane."""
    known = np.array(sorted(table), dtype=np.int64)
    values = np.array([table[int(k)] for k in known], dtype=np.int64)
    return values[np.searchsorted(known, lane)]


def order_of(columns: dict[str, NDArray[Any]], lanes: steps.Lanes, first: NDArray[Any]) -> NDArray[np.intp]:
    """Permutation that sorts by `first`, then by order key."""
    order = np.argsort(first, kind="stable")
    sorted_first = first[order]
    ties = np.flatnonzero(sorted_first[1:] == sorted_first[:-1])
    if not len(ties):
        return order
    # Only points that share their x need the order key: usually few.
    tied = np.unique(np.concatenate([ties, ties + 1]))
    some = order[tied]
    lane = columns["lane"][some]
    within = np.lexsort(
        (
            columns["seq"][some],
            lookup(lane, lanes.writer_ranks()),
            columns["time"][some],
            lookup(lane, lanes.ranks()),
            sorted_first[tied],
        )
    )
    order[tied] = some[within]
    return order


def is_ascending(values: NDArray[Any]) -> bool:
    """Strictly: no two points share an x."""
    return bool((values[1:] > values[:-1]).all())


def of_runs(run_nos: Sequence[int]) -> str:
    """Points of one run, or of a fork and its parents."""
    listed = ", ".join(str(int(no)) for no in run_nos)
    return f"run = {listed}" if len(run_nos) == 1 else f"run IN ({listed})"


def condition(lanes: steps.Lanes, key_no: int) -> str:
    """Points of one series, displayed or not."""
    return f"{of_runs(lanes.runs)} AND key = {int(key_no)}"


def _where(key_no: int, lanes: steps.Lanes, extra: str) -> str:
    """Points of one series that are displayed."""
    shown = lanes.condition()
    return condition(lanes, key_no) + extra + (f" AND {shown}" if shown else "")


def by_step(snap: Snapshot, key_no: int, lanes: steps.Lanes, extra: str = "") -> Line:
    """The series over displayed steps."""
    where = _where(key_no, lanes, extra)
    offsets = dict(lanes.offsets)
    if len(offsets) == 1:
        columns = snap.fetch(snap.query("step, v", where))
        x = columns["step"] + next(iter(offsets.values()))
        if is_ascending(x):
            return Line(x.astype(np.float64), columns["v"])
    columns = snap.fetch(snap.query("lane, seq, step, time, v", where))
    x = columns["step"] + offsets_of(columns["lane"], offsets)
    order = order_of(columns, lanes, x)
    return Line(x[order].astype(np.float64), columns["v"][order])


def by_time(snap: Snapshot, key_no: int, lanes: steps.Lanes, origin_us: int, extra: str = "") -> Line:
    """The series over seconds since `origin_us`."""
    where = _where(key_no, lanes, extra)
    if len(lanes.lanes) == 1:
        columns = snap.fetch(snap.query("time, v", where))
        if is_ascending(columns["time"]):
            return Line((columns["time"] - origin_us) * US, columns["v"])
    columns = snap.fetch(snap.query("lane, seq, time, v", where))
    time = columns["time"]
    order = order_of(columns, lanes, time)
    return Line((time[order] - origin_us) * US, columns["v"][order])


def by_metric(snap: Snapshot, key_no: int, x_key_no: int, lanes: steps.Lanes) -> Line:
    """The series over another metric's value in the same row (rows without it are left out)."""
    line = by_step(snap, key_no, lanes)
    other = by_step(snap, x_key_no, lanes)
    if not len(line.x) or not len(other.x):
        return Line(np.empty(0), np.empty(0))
    is_last = np.r_[other.x[1:] != other.x[:-1], True]
    steps_known, values = other.x[is_last], other.v[is_last]
    at = np.minimum(np.searchsorted(steps_known, line.x), len(steps_known) - 1)
    matched = (steps_known[at] == line.x) & np.isfinite(values[at])
    x, v = values[at][matched], line.v[matched]
    order = np.argsort(x, kind="stable")
    return Line(x[order], v[order])


__all__ = [
    "Line",
    "by_metric",
    "by_step",
    "by_time",
    "condition",
    "decode",
    "lookup",
    "of_runs",
    "offsets_of",
    "order_of",
]

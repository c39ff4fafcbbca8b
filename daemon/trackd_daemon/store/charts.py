"""chart(): several series on one shared grid."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from trackd_proto import records

from trackd_daemon.ports import ChartQuery, SampledSeries
from trackd_daemon.store import lineage, points, rollup_reads, sampling, steps, tables
from trackd_daemon.store.catalog import Catalog
from trackd_daemon.store.names import find_project, find_run
from trackd_daemon.store.series import Series, Snapshot

HELD_POINTS: Final = 2_000_000
"""More than these are not read at once (16 bytes each, and as much again while they are sorted)."""
LONG: Final = 65_536
"""From so many points on, a series over steps is read from rollups. Fewer are read in 2 ms, all series at once."""
_FAR: Final = 2**61
"""Steps beyond are charted from points only: there is room for sums below it."""


@dataclass(frozen=True, slots=True)
class _Request:
    run: tuple[str, str]
    key: str
    key_no: int
    x_key_no: int | None
    lanes: steps.Lanes
    created_us: int
    count: int


def chart(catalog: Catalog, series: Series, query: ChartQuery) -> list[SampledSeries]:
    """The series that exist, in the order of query.runs and within it of query.keys."""
    with catalog.read() as con:
        requests = [r for run in query.runs for r in _requests(con, run, query)]
    if not requests:
        return []
    with series.snapshot({no for r in requests for no in r.lanes.runs}) as snap:
        long = {i: rollup_reads.find(snap, r.key_no, r.lanes) for i, r in enumerate(requests) if _is_long(r, query)}
        short = {i: r for i, r in enumerate(requests) if i not in long}
        if sum(r.count for r in short.values()) > HELD_POINTS:
            lines = None
            ranges = [found for r in requests if (found := _bounds(snap, r, query))]
        else:
            lines = {i: line for i, r in short.items() if len((line := _range(_load(snap, r, query), query)).x)}
            ranges = [(float(line.x[0]), float(line.x[-1])) for line in lines.values()]
            ranges += [(float(found.low), float(found.high)) for found in long.values() if _meets(found, query)]
        if not ranges:
            return []
        low = query.start if query.start is not None else min(low for low, _ in ranges)
        high = query.end if query.end is not None else max(high for _, high in ranges)
        grid = sampling.Grid.over(low, high, query.buckets)
        result = []
        for i, request in enumerate(requests):
            if i in long:
                buckets = rollup_reads.sample(snap, long[i], grid, *_step_range(query))
            elif lines is None:
                # Too many to hold at once: the ranges came first, now one series is read after another.
                buckets = _by_chunks(snap, request, grid, query)
            else:
                buckets = _reduced(lines[i], grid) if i in lines else None
            if buckets is not None:
                result.append(_sampled(request, buckets))
    return result


def _is_long(request: _Request, query: ChartQuery) -> bool:
    is_by_step = query.x_axis == "_step" and query.stream == "default"
    lanes = request.lanes
    return (
        is_by_step
        and request.count >= LONG
        and all(lane.min_step > -_FAR and lane.max_step + lanes.offsets[n] < _FAR for n, lane in lanes.lanes.items())
    )


def _by_chunks(snap: Snapshot, request: _Request, grid: sampling.Grid, query: ChartQuery) -> sampling.Buckets | None:
    is_system = query.stream == "system"
    if request.x_key_no is not None or (query.x_axis == "_step" and not is_system):
        return _reduced(_range(_load(snap, request, query), query), grid)
    found = rollup_reads.find(snap, request.key_no, request.lanes, has_heads=not is_system)
    origin_us = request.created_us if query.x_axis == "_relative" else 0
    return rollup_reads.sample_by_time(snap, found, grid, origin_us, query.start, query.end)


def _step_range(query: ChartQuery) -> tuple[int | None, int | None]:
    """The query's range in whole steps, both ends inclusive."""
    start = None if query.start is None else math.ceil(min(max(query.start, -_FAR), _FAR))
    return start, None if query.end is None else math.floor(min(max(query.end, -_FAR), _FAR))


def _meets(found: rollup_reads.Series, query: ChartQuery) -> bool:
    """Whether a series has points in the range, if the range is open at one end."""
    if not found.pieces:
        return False
    return (query.start is None or found.high >= query.start) and (query.end is None or found.low <= query.end)


def _bounds(snap: Snapshot, request: _Request, query: ChartQuery) -> tuple[float, float] | None:
    """Least and greatest x of any row of the run's stream, over a metric of the series' own; None without points."""
    if request.x_key_no is not None:  # only the points tell: they are read, let go, and read again for the grid
        line = _range(_load(snap, request, query), query)
        return (float(line.x[0]), float(line.x[-1])) if len(line.x) else None
    lanes = request.lanes
    is_system = query.stream == "system"
    shown = {no: span for no in lanes.lanes if (steps.lane_kind(no) == records.SYSTEM) == is_system
             and (span := lanes.shown(no))}  # fmt: skip
    if not shown:
        return None
    if query.x_axis == "_step" and not is_system:
        return float(min(low for low, _ in shown.values())), float(max(high for _, high in shown.values()))
    origin = request.created_us if query.x_axis == "_relative" else 0
    first = min(lanes.lanes[no].min_time for no in shown)
    return (first - origin) * points.US, (max(lanes.lanes[no].max_time for no in shown) - origin) * points.US


def _requests(con: Connection, run: tuple[str, str], query: ChartQuery) -> list[_Request]:
    project_no = find_project(con, run[0])
    run_no = None if project_no is None else find_run(con, project_no, run[1])
    if run_no is None:
        return []
    lanes = lineage.load_lanes(con, run_no, query.attempt)
    if not any((steps.lane_kind(no) == records.SYSTEM) == (query.stream == "system") for no in lanes.lanes):
        return []
    wanted = list(dict.fromkeys(query.keys))
    is_metric = not query.x_axis.startswith("_")
    names = [*wanted, query.x_axis] if is_metric else wanted
    k, s = tables.keys, tables.key_stats
    found: dict[str, tuple[int, int]] = {}
    for first in range(0, len(names), 500):
        for row in con.execute(
            sa.select(k.c.name, k.c.key_no, s.c.numbers)
            .join(s, sa.and_(s.c.key_no == k.c.key_no, s.c.run_no.in_(lanes.runs)))
            .where(k.c.stream == query.stream, k.c.name.in_(names[first : first + 500]))
        ):
            found[row.name] = (row.key_no, row.numbers + found.get(row.name, (0, 0))[1])
    created = con.execute(sa.select(tables.runs.c.created_us).where(tables.runs.c.run_no == run_no)).scalar_one()
    x_key = found[query.x_axis][0] if is_metric and query.x_axis in found else None
    if is_metric and x_key is None:
        return []
    return [_Request(run, key, found[key][0], x_key, lanes, created, found[key][1]) for key in wanted if key in found]


def _load(snap: Snapshot, request: _Request, query: ChartQuery) -> points.Line:
    who = (snap, request.key_no)
    if request.x_key_no is not None:
        return points.by_metric(*who, request.x_key_no, request.lanes)
    if query.x_axis == "_relative":
        return points.by_time(*who, request.lanes, request.created_us)
    if query.x_axis == "_timestamp" or query.stream == "system":
        return points.by_time(*who, request.lanes, 0)
    return points.by_step(*who, request.lanes)


def _range(line: points.Line, query: ChartQuery) -> points.Line:
    if query.start is None and query.end is None:
        return line
    first = 0 if query.start is None else np.searchsorted(line.x, query.start, side="left")
    stop = len(line.x) if query.end is None else np.searchsorted(line.x, query.end, side="right")
    return points.Line(line.x[first:stop], line.v[first:stop])


def _reduced(line: points.Line, grid: sampling.Grid) -> sampling.Buckets | None:
    return sampling.reduce(line.x, line.v, grid) if len(line.x) else None


def _sampled(request: _Request, b: sampling.Buckets) -> SampledSeries:
    return SampledSeries(
        request.run, request.key, b.x, b.last, b.min, b.max, b.mean, b.min_x, b.max_x, b.count, b.flags,
        int(b.count.sum()),
    )  # fmt: skip

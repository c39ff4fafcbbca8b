"""One long series on a grid, in bounded memory.

Over steps at a cost that does not grow with its length: from rollups where parts have them and they are fine enough,
from points at the ends of the range and for all that is not compacted yet. Over time from points, chunk by chunk.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trackd_daemon.store import decode, edges, points, steps, summaries
from trackd_daemon.store.sampling import Buckets, Grid
from trackd_daemon.store.series import ROLLUPS, Snapshot, Source
from trackd_daemon.store.summaries import Summaries

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
_NUMBERS: Final = (decode.FLOATS, decode.INTS)
CHUNK_POINTS: Final = 1_000_000
"""About so many points are held at once."""
_SLICE_POINTS: Final = 32_768


@dataclass(frozen=True, slots=True)
class Piece:
    """What one source has of one lane of the series."""

    source: int
    """Index in the snapshot's sources."""
    lane: int
    count: int
    low: int
    """Least stored step."""
    high: int
    finest: int
    """Finest level of its rollups, 0 if it has none."""


@dataclass(frozen=True, slots=True)
class Series:
    """All pieces of one series."""

    key_no: int
    lanes: steps.Lanes
    pieces: list[Piece]

    @property
    def low(self) -> int:
        """Least shown step."""
        return min(p.low + self.lanes.offsets[p.lane] for p in self.pieces)

    @property
    def high(self) -> int:
        """Greatest shown step."""
        return max(self.lanes.clipped(p.lane, p.high) + self.lanes.offsets[p.lane] for p in self.pieces)


@dataclass(frozen=True, slots=True)
class _Share:
    """A piece, and what of it is read how: bucket and step ranges, upper ends exclusive."""

    piece: Piece
    buckets: tuple[int, int] | None
    steps: tuple[tuple[int, int], ...]


def find(snap: Snapshot, key_no: int, lanes: steps.Lanes, *, has_heads: bool = True) -> Series:
    """What there is of a series, without reading its points (those of hot files are looked through).

    `has_heads`: False for system metrics, of which there are no rollups.
    """
    where = points.condition(lanes, key_no)
    asked = []
    for index, source in enumerate(snap.sources):
        if has_heads and ROLLUPS in source.tables:
            asked.append(
                f"SELECT {index}, lane, count, low, high, finest FROM {source.tables[ROLLUPS]}"
                f" WHERE {where} AND level = 0"
            )
        else:
            # One piece per lane, not one per kind of number: ranges of pieces must not overlap.
            numbers = " UNION ALL ".join(
                f"SELECT lane, step FROM {source.tables[kind]} WHERE {where}"
                for kind in _NUMBERS
                if kind in source.tables
            )
            if numbers:
                asked.append(f"SELECT {index}, lane, count(*), min(step), max(step), 0 FROM ({numbers}) GROUP BY lane")
    rows = snap.rows(" UNION ALL ".join(asked)) if asked else []
    # A lane that the catalog's snapshot does not know began after it.
    pieces = [p for row in rows if (p := Piece(*row)).lane in lanes.offsets and p.low <= lanes.clipped(p.lane, p.high)]
    return Series(key_no, lanes, pieces)


def sample(snap: Snapshot, series: Series, grid: Grid, start: int | None, end: int | None) -> Buckets | None:
    """The series within [start, end] of shown steps, both inclusive; None if there is no point.

    Buckets are the grid's; wider ones have their edges moved (edges.py) whether or not there are rollups, so that the
    answer does not tell what is compacted.
    """
    level = summaries.level_for(grid.width)
    clipped = [(p, c) for p in series.pieces if (c := _clip(p, series.lanes, start, end))]
    if not clipped:
        return None
    marks = None
    if level:
        marks = edges.place(int(grid.width), summaries.width_of(level), _spans(series, start, end))
    aligned = marks.aligned if marks else frozenset()
    shares = [_share(p, c, level if p.lane in aligned else 0) for p, c in clipped]
    is_disjoint = _are_disjoint((c[0] + o, c[1] + o) for p, c in clipped for o in (series.lanes.offsets[p.lane],))
    parts = [_read_rollups(snap, series, shares, level), *_read_points(snap, series, shares, is_disjoint, grid, marks)]
    found = [s for s in parts if s is not None and len(s.step)]
    if not found:
        return None
    return _buckets(_in_order(summaries.concat(found), series.lanes), grid, marks)


def _clip(piece: Piece, lanes: steps.Lanes, start: int | None, end: int | None) -> tuple[int, int] | None:
    """Stored steps of a piece in the range that are displayed, inclusive."""
    offset, high = lanes.offsets[piece.lane], lanes.clipped(piece.lane, piece.high)
    low = piece.low if start is None else max(piece.low, start - offset)
    high = high if end is None else min(high, end - offset)
    return (low, high) if low <= high else None


def _are_disjoint(ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether no two of these ranges of shown steps, ends included, have a step in common."""
    ordered = sorted(ranges)
    return all(after[0] > before[1] for before, after in itertools.pairwise(ordered))


def _spans(series: Series, start: int | None, end: int | None) -> list[edges.Span]:
    """What each lane covers of the range: whatever files its points are in, so of all pieces, and clipped only then."""
    found: dict[int, Piece] = {}
    for p in series.pieces:
        q = found.get(p.lane, p)
        count = p.count if q is p else p.count + q.count
        found[p.lane] = Piece(0, p.lane, count, min(p.low, q.low), max(p.high, q.high), 0)
    spans = []
    for piece in found.values():
        offset = series.lanes.offsets[piece.lane]
        if clipped := _clip(piece, series.lanes, start, end):
            spans.append(edges.Span(piece.lane, clipped[0] + offset, clipped[1] + offset, offset, piece.count))
    return spans


def _share(piece: Piece, clipped: tuple[int, int], level: int) -> _Share:
    low, high = clipped
    if not level or not 0 < piece.finest <= level:
        return _Share(piece, None, ((low, high + 1),))
    width = summaries.width_of(level)
    first = piece.low // width if low == piece.low else -(-low // width)
    after = piece.high // width + 1 if high == piece.high else (high + 1) // width
    if first >= after:
        return _Share(piece, None, ((low, high + 1),))
    ends = [(low, first * width), (after * width, high + 1)]
    return _Share(piece, (first, after), tuple((a, b) for a, b in ends if a < b))


def _listed(ranges: Iterable[tuple[int, tuple[int, int]]], column: str) -> str:
    """Condition: these ranges of these lanes."""
    by_range: dict[tuple[int, int], list[int]] = {}
    for lane, limits_of in ranges:
        by_range.setdefault(limits_of, []).append(lane)
    return " OR ".join(
        f"({column} >= {low} AND {column} <= {after - 1} AND lane IN ({', '.join(map(str, lanes))}))"
        for (low, after), lanes in by_range.items()
    )


def _by_source(snap: Snapshot, shares: Iterable[_Share]) -> list[tuple[Source, list[_Share]]]:
    found: dict[int, list[_Share]] = {}
    for share in shares:
        found.setdefault(share.piece.source, []).append(share)
    return [(snap.sources[index], some) for index, some in found.items()]


def _read_rollups(snap: Snapshot, series: Series, shares: Iterable[_Share], level: int) -> Summaries | None:
    asked = []
    for source, some in _by_source(snap, shares):
        ranges = [(s.piece.lane, s.buckets) for s in some if s.buckets]
        if ranges:
            asked.append(
                "SELECT lane, bucket, count, finite, mean, min, max, min_at, max_at, last, last_at, time, seq, flags"
                f" FROM {source.tables[ROLLUPS]} WHERE {points.condition(series.lanes, series.key_no)}"
                f" AND level = {level} AND ({_listed(ranges, 'bucket')})"
            )
    if not asked:
        return None
    c = snap.fetch(" UNION ALL ".join(asked))
    # Where each bucket begins as it is shown; ties between lanes must be compared as shown.
    begin = _shown(c["lane"], c["bucket"] * summaries.width_of(level), series.lanes)
    return Summaries(
        c["lane"], begin + c["last_at"], c["time"], c["seq"], c["last"], c["count"], c["finite"], c["mean"], c["min"],
        c["max"], begin + c["min_at"], begin + c["max_at"], c["flags"],
    )  # fmt: skip


def _read_points(
    snap: Snapshot,
    series: Series,
    shares: Iterable[_Share],
    is_disjoint: bool,
    grid: Grid,
    marks: edges.Edges | None,
) -> Iterable[Summaries]:
    for columns in _chunks(snap, series, shares, _fetch_ascending if is_disjoint else _fetch):
        for some in _slices(columns):
            yield _summed(some, series.lanes, grid, marks)


def _slices(c: Columns) -> Iterator[Columns]:
    """Points in order are summed a cache's worth at a time: fresh memory costs more than the sums."""
    count = len(c["v"])
    size = _SLICE_POINTS if _is_strictly_ascending(c["lane"], c["step"]) else max(count, 1)
    for first in range(0, count, size):
        yield {name: column[first : first + size] for name, column in c.items()}


def _chunks(snap: Snapshot, series: Series, shares: Iterable[_Share], fetch: "_Fetch") -> Iterator[Columns]:
    """The points to be read of each source, in chunks if they are many."""
    for source, some in _by_source(snap, shares):
        pending: list[tuple[int, tuple[int, int]]] = []
        held = 0
        for share in some:
            for part, count in _cut(share):
                if pending and held + count > CHUNK_POINTS:
                    yield fetch(snap, series, source, pending)
                    pending, held = [], 0
                pending.append((share.piece.lane, part))
                held += count
        if pending:
            yield fetch(snap, series, source, pending)


def _cut(share: _Share) -> Iterator[tuple[tuple[int, int], int]]:
    """Ranges of steps with at most CHUNK_POINTS each, if points are spread evenly; about how many there are."""
    piece = share.piece
    for low, after in share.steps:
        count = -(-piece.count * (after - low) // (piece.high - piece.low + 1))
        width = max(1, (after - low) // -(-count // CHUNK_POINTS))
        for first in range(low, after, width):
            yield (first, min(first + width, after)), min(count, CHUNK_POINTS)


def _fetch(snap: Snapshot, series: Series, source: Source, ranges: "_Ranges") -> Columns:
    return _select(snap, series, source, ranges, "lane, step, time, seq")


def _fetch_ascending(snap: Snapshot, series: Series, source: Source, ranges: "_Ranges") -> Columns:
    """The same without time and seq (zeros) where steps alone tell the order: half the columns, half the time."""
    lane = ranges[0][0]
    is_one_lane = all(other == lane for other, _ in ranges)
    c = _select(snap, series, source, ranges, "step" if is_one_lane else "lane, step")
    if is_one_lane:
        c["lane"] = np.full(len(c["step"]), lane, dtype=np.int32)
    if not _is_strictly_ascending(c["lane"], c["step"]):
        return _fetch(snap, series, source, ranges)
    c["time"] = c["seq"] = np.zeros(len(c["step"]), dtype=np.int64)
    return c


_Ranges = list[tuple[int, tuple[int, int]]]
"""Lanes, and ranges of their stored steps, upper ends exclusive."""
_Fetch = Callable[[Snapshot, Series, Source, _Ranges], Columns]


def _select(snap: Snapshot, series: Series, source: Source, ranges: _Ranges, columns: str) -> Columns:
    where = f"{points.condition(series.lanes, series.key_no)} AND ({_listed(ranges, 'step')})"
    asked = [
        f"SELECT {columns}, CAST(v AS DOUBLE) AS v FROM {source.tables[kind]} WHERE {where}"
        for kind in _NUMBERS
        if kind in source.tables
    ]
    return snap.fetch(" UNION ALL ".join(asked))


def _is_strictly_ascending(lane: NDArray[np.int32], step: Ints) -> bool:
    return bool(((lane[1:] > lane[:-1]) | ((lane[1:] == lane[:-1]) & (step[1:] > step[:-1]))).all())


def sample_by_time(
    snap: Snapshot, series: Series, grid: Grid, origin_us: int, start: float | None, end: float | None
) -> Buckets | None:
    """The series over seconds since `origin_us` within [start, end], both inclusive; None if there is no point."""
    found = []
    shares = [_Share(p, None, ((p.low, series.lanes.clipped(p.lane, p.high) + 1),)) for p in series.pieces]
    for c in _chunks(snap, series, shares, _fetch):
        x = _seconds(c["time"], origin_us)
        inside = np.ones(len(x), dtype=bool)
        if start is not None:
            inside &= x >= start
        if end is not None:
            inside &= x <= end
        order = np.flatnonzero(inside)
        order = order[np.lexsort((c["seq"][order], c["time"][order], c["lane"][order]))]
        if len(order):
            lane, time = c["lane"][order], c["time"][order]
            starts = summaries.starts_of(lane, grid.index(x[order]))
            found.append(summaries.of_points(lane, time, time, c["seq"][order], c["v"][order], starts))
    if not found:
        return None
    s = _in_order(summaries.concat(found), series.lanes)
    made = summaries.merge(s, summaries.starts_of(grid.index(_seconds(s.step, origin_us))))
    return _shown_as(made, *(_seconds(at, origin_us) for at in (made.step, made.min_step, made.max_step)))


def _seconds(time_us: Ints, origin_us: int) -> Floats:
    return np.multiply(time_us - origin_us, points.US, dtype=np.float64)


def _summed(c: Columns, lanes: steps.Lanes, grid: Grid, marks: edges.Edges | None) -> Summaries:
    """Points as they came, to one summary for each bucket and lane."""
    lane, step = c["lane"], c["step"]
    if not _is_strictly_ascending(lane, step):
        order = np.lexsort((c["seq"], c["time"], step, lane))
        c = {name: column[order] for name, column in c.items()}
        lane, step = c["lane"], c["step"]
    shown = _shown(lane, step, lanes)
    if marks and lane[0] == lane[-1]:
        starts = marks.cuts(shown)
    else:
        starts = summaries.starts_of(lane, _index(shown, grid, marks))
    return summaries.of_points(lane, shown, c["time"], c["seq"], c["v"], starts)


def _shown(lane: NDArray[np.int32], step: Ints, lanes: steps.Lanes) -> Ints:
    return np.add(step, points.offsets_of(lane, dict(lanes.offsets)), dtype=np.int64)


def _index(shown: Ints, grid: Grid, marks: edges.Edges | None) -> NDArray[Any]:
    return marks.index(shown) if marks else grid.index(shown.astype(np.float64))


def _in_order(s: Summaries, lanes: steps.Lanes) -> Summaries:
    """By the last point's shown step, and where equal by its order key."""
    if points.is_ascending(s.step):
        return s
    return s.take(points.order_of({"lane": s.lane, "time": s.time, "seq": s.seq}, lanes, s.step))


def _buckets(s: Summaries, grid: Grid, marks: edges.Edges | None) -> Buckets:
    made = summaries.merge(s, summaries.starts_of(_index(s.step, grid, marks)))
    return _shown_as(made, *(at.astype(np.float64) for at in (made.step, made.min_step, made.max_step)))


def _shown_as(made: Summaries, x: Floats, min_x: Floats, max_x: Floats) -> Buckets:
    has = made.finite > 0
    return Buckets(
        x, made.last, made.min, made.max, made.mean,
        np.where(has, min_x, np.nan), np.where(has, max_x, np.nan), made.count, made.flags,
    )  # fmt: skip

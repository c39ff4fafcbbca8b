"""The rollups of a part: one Parquet file beside it, written with it and unlinked with it.

Sorted by (run, key, level, lane, bucket). History only: system metrics are few, and charted over time.

===========  =======================================================================================================
level        0: a head, one per (run, key, lane); k in 1…5: a bucket of 64^k stored steps
bucket       the bucket covers the stored steps [bucket * 64^k, (bucket + 1) * 64^k)
count        points of the head's lane, or in the bucket
low, high    head: least and greatest stored step
finest       head: the finest level written, all coarser ones are too; 0: none, the points are to be read
finite       how many of the points are finite; mean, min, max over these (NULL if there are none)
min_at, …    where the minimum, maximum and the last point stand: distance from the bucket's first step
last         value of the last point by (step, time, seq); time and seq are its
flags        1: NaN in the bucket, 2: +Inf, 4: -Inf
===========  =======================================================================================================

A level is left out where it would have more than a sixteenth as many rows as points (steps far apart), and all of them
for fewer than MIN_POINTS points: reading the points costs as little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from trackd_daemon.store import steps, summaries
from trackd_daemon.store.summaries import LEVELS, Summaries

MIN_POINTS: Final = 4096
CHUNK_POINTS: Final = 250_000
"""So many points are held at once (about 60 bytes each), unless more stand in one coarse bucket."""
SPARSE: Final = 16
_CHUNK_LEVEL: Final = 3
"""A long series is cut at these buckets; coarser levels are made of this one's rows at the end."""
_TYPES: Final = {
    "run": "INTEGER", "key": "INTEGER", "level": "TINYINT", "lane": "INTEGER", "bucket": "BIGINT", "count": "BIGINT",
    "low": "BIGINT", "high": "BIGINT", "finest": "TINYINT", "finite": "BIGINT", "mean": "DOUBLE", "min": "DOUBLE",
    "max": "DOUBLE", "min_at": "INTEGER", "max_at": "INTEGER", "last": "DOUBLE", "last_at": "INTEGER", "time": "BIGINT",
    "seq": "BIGINT", "flags": "UTINYINT",
}  # fmt: skip
_NAMES: Final = ("run", "key", "lane")
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Group:
    """All points of one lane of a series in this part."""

    name: tuple[int, ...]
    """run, key, lane"""
    count: int
    low: int
    high: int
    before: int
    """Points of the part that sort before these."""

    @property
    def after(self) -> int:
        """Points of the part up to the end of these."""
        return self.before + self.count


def write(cursor: duckdb.DuckDBPyConnection, sources: Sequence[str], target: Path) -> bool:
    """Write the rollups of the points in `sources` (what stands after FROM); whether there are any."""
    united = " UNION ALL ".join(
        f"SELECT run, key, lane, seq, step, time, CAST(v AS DOUBLE) AS v FROM {source}" for source in sources
    )
    history = f"(SELECT * FROM ({united}) WHERE lane % 4 <> {steps.SYSTEM_LANE})"
    names = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE rollups ({names})")
    try:
        cursor.execute(
            "INSERT INTO temp.rollups (run, key, lane, level, count, low, high, finest)"
            f" SELECT run, key, lane, 0, count(*), min(step), max(step), 0 FROM {history} GROUP BY run, key, lane"
        )
        groups = _large_groups(cursor)
        finest = _fill(cursor, history, groups) if groups else {}
        for (run, key, lane), level in finest.items():
            mine = f"run = {run} AND key = {key} AND lane = {lane}"
            cursor.execute(f"UPDATE temp.rollups SET finest = {level} WHERE level = 0 AND {mine}")
            if level != 1:
                kept = level or max(LEVELS) + 1
                cursor.execute(f"DELETE FROM temp.rollups WHERE level > 0 AND level < {kept} AND {mine}")
        path = str(target).replace("'", "''")
        cursor.execute(
            "COPY (SELECT * FROM temp.rollups"
            f" ORDER BY run, key, level, lane, bucket) TO '{path}'"
            " (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE 16384)"
        )
    finally:
        cursor.execute("DROP TABLE IF EXISTS temp.rollups")
    return target.exists()


def _large_groups(cursor: duckdb.DuckDBPyConnection) -> list[_Group]:
    found = cursor.execute(
        "SELECT * FROM (SELECT run, key, lane, count, low, high,"
        " CAST(sum(count) OVER (ORDER BY run, key, lane) AS BIGINT) - count FROM temp.rollups WHERE level = 0)"
        f" WHERE count >= {MIN_POINTS} ORDER BY run, key, lane"
    ).fetchall()
    return [_Group((run, key, lane), *numbers) for run, key, lane, *numbers in found]


def _fill(cursor: duckdb.DuckDBPyConnection, history: str, groups: Sequence[_Group]) -> dict[tuple[int, ...], int]:
    """Every level of the long groups into the table; the finest level worth keeping of each."""
    numbers = {level: dict.fromkeys((g.name for g in groups), 0) for level in LEVELS}
    coarse: list[tuple[Columns, Summaries]] = []
    for where, some in _chunks(groups):
        columns = cursor.execute(f"SELECT * FROM {history} WHERE {where}").fetchnumpy()
        rows = _first_level(_sorted(columns), some)
        for level in LEVELS[:_CHUNK_LEVEL]:
            if level > 1:
                rows = _coarser(*rows, level)
            _store(cursor, level, rows, numbers[level])
        coarse.append(rows)
    if coarse:
        names = {n: np.concatenate([c[n] for c, _ in coarse]) for n in _NAMES}
        rows = (names, summaries.concat([s for _, s in coarse]))
        for level in LEVELS[_CHUNK_LEVEL:]:
            rows = _coarser(*rows, level)
            _store(cursor, level, rows, numbers[level])
    return {g.name: next((level for level in LEVELS if numbers[level][g.name] * SPARSE <= g.count), 0) for g in groups}


def _chunks(groups: Sequence[_Group]) -> Iterator[tuple[str, Sequence[_Group]]]:
    """Conditions for chunks of points, each with the groups of which it holds points."""
    pending: list[_Group] = []
    for group in groups:
        if pending and group.after - pending[0].before > CHUNK_POINTS:
            yield _between(pending[0], pending[-1]), pending
            pending = []
        if group.count > CHUNK_POINTS:
            yield from _pieces(group)
        else:
            pending.append(group)
    if pending:
        yield _between(pending[0], pending[-1]), pending


def _between(first: _Group, last: _Group) -> str:
    """These groups and all that sort between them."""
    (r1, k1, l1), (r2, k2, l2) = first.name, last.name
    if (r1, k1) == (r2, k2):
        return f"run = {r1} AND key = {k1} AND lane BETWEEN {l1} AND {l2}"
    # The first conditions follow from the rest: they let the database skip what it need not read.
    outer = f"run BETWEEN {r1} AND {r2}" if r1 != r2 else f"run = {r1} AND key BETWEEN {k1} AND {k2}"
    above = f"(run > {r1} OR key > {k1} OR (key = {k1} AND lane >= {l1}))"
    below = f"(run < {r2} OR key < {k2} OR (key = {k2} AND lane <= {l2}))"
    return f"{outer} AND {above} AND {below}"


def _pieces(group: _Group) -> Iterator[tuple[str, Sequence[_Group]]]:
    unit = summaries.width_of(_CHUNK_LEVEL)
    pieces = -(-group.count // CHUNK_POINTS)
    width = max(1, (group.high // unit - group.low // unit + 1) // pieces) * unit
    begin = group.low // unit * unit
    while begin <= group.high:
        yield f"{_between(group, group)} AND step BETWEEN {begin} AND {min(begin + width - 1, group.high)}", [group]
        begin += width


def _sorted(columns: Columns) -> Columns:
    """By (run, key, lane, step, time, seq): nearly always as they come."""
    columns["v"] = np.ma.filled(columns["v"], np.nan)
    run, key, lane, step = (columns[n] for n in (*_NAMES, "step"))
    is_less = np.zeros(max(len(run) - 1, 0), dtype=bool)
    is_same = np.ones(len(is_less), dtype=bool)
    for column in (run, key, lane, step):
        is_less |= is_same & (column[1:] < column[:-1])
        is_same &= column[1:] == column[:-1]
    if is_less.any() or is_same.any():
        order = np.lexsort((columns["seq"], columns["time"], step, lane, key, run))
        return {name: column[order] for name, column in columns.items()}
    return columns


def _first_level(columns: Columns, groups: Sequence[_Group]) -> tuple[Columns, Summaries]:
    keep = np.zeros(len(columns["run"]), dtype=bool)
    starts = summaries.starts_of(*(columns[n] for n in _NAMES))
    wanted = {g.name for g in groups}
    for first, after in zip(starts, np.r_[starts[1:], len(keep)], strict=True):
        keep[first:after] = tuple(int(columns[n][first]) for n in _NAMES) in wanted
    if not keep.all():
        columns = {name: column[keep] for name, column in columns.items()}
    names = [columns[n] for n in _NAMES]
    starts = summaries.starts_of(*names, summaries.bucket_of(columns["step"], 1))
    c = columns
    made = summaries.of_points(c["lane"], c["step"], c["time"], c["seq"], c["v"], starts)
    return {name: columns[name][starts] for name in _NAMES}, made


def _coarser(names: Columns, s: Summaries, level: int) -> tuple[Columns, Summaries]:
    starts = summaries.starts_of(*(names[n] for n in _NAMES), summaries.bucket_of(s.step, level))
    return {name: names[name][starts] for name in _NAMES}, summaries.merge(s, starts)


def _store(
    cursor: duckdb.DuckDBPyConnection,
    level: int,
    rows: tuple[Columns, Summaries],
    numbers: dict[tuple[int, ...], int],
) -> None:
    names, s = rows
    if not len(s.step):
        return
    starts = summaries.starts_of(*(names[n] for n in _NAMES))
    for first, after in zip(starts.tolist(), [*starts[1:].tolist(), len(s.step)], strict=True):
        numbers[tuple(int(names[n][first]) for n in _NAMES)] += after - first
    bucket = summaries.bucket_of(s.step, level)
    begin = bucket * summaries.width_of(level)
    has = s.finite > 0
    columns = {
        **names, "level": np.full(len(bucket), level, dtype=np.int8), "bucket": bucket, "count": s.count,
        "finite": s.finite, "mean": s.mean, "min": s.min, "max": s.max,
        "min_at": np.where(has, s.min_step - begin, 0), "max_at": np.where(has, s.max_step - begin, 0),
        "last": s.last, "last_at": s.step - begin, "time": s.time, "seq": s.seq, "flags": s.flags,
    }  # fmt: skip
    _insert(cursor, columns)


def _insert(cursor: duckdb.DuckDBPyConnection, columns: Columns) -> None:
    cursor.register("made", columns)
    listed = ", ".join(f'"{name}"' for name in columns)
    cursor.execute(f"INSERT INTO temp.rollups ({listed}) SELECT {listed} FROM made")
    cursor.unregister("made")

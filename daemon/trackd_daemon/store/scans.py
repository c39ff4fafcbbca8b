"""scan(): exact merged rows in step order, in bounded memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from trackd_proto import records

from trackd_daemon.store import decode, lineage, points, steps, tables
from trackd_daemon.store.catalog import Catalog
from trackd_daemon.store.names import find_project, find_run
from trackd_daemon.store.series import Series, Snapshot

Json = dict[str, Any]
WINDOW_POINTS: Final = 50_000
ROWS_PER_LIST: Final = 10_000
_KINDS: Final = (decode.FLOATS, decode.INTS, decode.OTHERS)
_CELLS: Final = 4096
_STEPS_PER_QUERY: Final = 1000
_BYTES_PER_POINT: Final = 200
"""So many bytes of a text count as one point more: about what a number takes while it is read."""


def scan(
    catalog: Catalog,
    series: Series,
    project: str,
    run_id: str,
    *,
    keys: Sequence[str] | None,
    start: int | None,
    end: int | None,
    stream: str,
    steps_wanted: Sequence[int] | None,
    attempt: int | None,
) -> Iterator[list[Json]]:
    """See ports.ReadPort.scan."""
    with catalog.read() as con:
        project_no = find_project(con, project)
        run_no = None if project_no is None else find_run(con, project_no, run_id)
        if run_no is None:
            return
        lanes = lineage.load_lanes(con, run_no, attempt)
        k, s = tables.keys, tables.key_stats
        known = sa.select(k.c.key_no, k.c.name).join(s, s.c.key_no == k.c.key_no)
        names = {
            row.key_no: row.name
            for row in con.execute(known.where(s.c.run_no.in_(lanes.runs), k.c.stream == stream))
            if keys is None or row.name in keys
        }
        created = con.execute(sa.select(tables.runs.c.created_us).where(tables.runs.c.run_no == run_no)).scalar_one()
    mine = {no: span for no in lanes.lanes if lane_stream(no) == stream and (span := lanes.shown(no))}
    if not names or not mine:
        return
    low = min(span[0] for span in mine.values())
    high = max(span[1] for span in mine.values()) + 1
    low, high = low if start is None else max(low, start), high if end is None else min(high, end)
    scanner = _Scanner(names, lanes, set(mine), created, keys is not None)
    with series.snapshot(set(lanes.runs)) as snap:
        if steps_wanted is not None:
            wanted = sorted({step for step in steps_wanted if low <= step < high})
            conditions = (scanner.at(some) for some in scanner.groups(snap, wanted))
        else:
            conditions = (scanner.between(*window) for window in scanner.windows(snap, low, high))
        for where in conditions:
            # Rows of several windows are not gathered: a row may have ten thousand values.
            rows = scanner.rows(snap, where)
            for first in range(0, len(rows), ROWS_PER_LIST):
                yield rows[first : first + ROWS_PER_LIST]


def lane_stream(lane_no: int) -> str:
    """The stream that a lane's rows belong to."""
    return "system" if steps.lane_kind(lane_no) == records.SYSTEM else "default"


class _Scanner:
    def __init__(
        self, names: dict[int, str], lanes: steps.Lanes, mine: set[int], created_us: int, is_partial: bool
    ) -> None:
        self._names = names
        self._lanes = lanes
        self._mine = mine
        self._created_us = created_us
        self._is_partial = is_partial

    def between(self, low: int, high: int) -> str:
        """Condition: points whose displayed step is in [low, high)."""
        return self._where(lambda offset: f"step >= {low - offset} AND step < {high - offset}")

    def at(self, shown: Sequence[int]) -> str:
        """Condition: points at these displayed steps (ascending)."""

        def of_lanes(offset: int) -> str:
            listed = ", ".join(str(step - offset) for step in shown)
            # The range lets whole row groups be skipped, the list picks the rows.
            return f"step >= {shown[0] - offset} AND step <= {shown[-1] - offset} AND step IN ({listed})"

        return self._where(of_lanes)

    def _where(self, of_lanes: Callable[[int], str]) -> str:
        by_offset: dict[int, list[int]] = {}
        for lane in self._mine:
            by_offset.setdefault(self._lanes.offsets[lane], []).append(lane)
        lanes = " OR ".join(
            f"({of_lanes(offset)} AND lane IN ({', '.join(map(str, some))}))" for offset, some in by_offset.items()
        )
        where = f"{points.of_runs(self._lanes.runs)} AND ({lanes})"
        if self._lanes.cuts:
            where += f" AND {self._lanes.condition()}"
        if self._is_partial:
            where += f" AND key IN ({', '.join(map(str, self._names))})"
        return where

    def groups(self, snap: Snapshot, shown: Sequence[int]) -> Iterator[list[int]]:
        """The displayed steps (ascending) in groups with about WINDOW_POINTS points each."""
        for first in range(0, len(shown), _STEPS_PER_QUERY):
            some = shown[first : first + _STEPS_PER_QUERY]
            # Numbers are counted only where they can be too many: it takes as long as reading few of them.
            kinds = (decode.OTHERS,) if len(some) * len(self._names) <= WINDOW_POINTS else _KINDS
            weights = self._weights(snap, 0, 1, self.at(some), kinds)
            group: list[int] = []
            held = 0
            for step in some:
                weight = weights.get(step, 0)
                if group and held + weight > WINDOW_POINTS:
                    yield group
                    group, held = [], 0
                group.append(step)
                held += weight
            yield group

    def _weights(self, snap: Snapshot, low: int, cell: int, where: str, kinds: Sequence[str]) -> Mapping[int, int]:
        """How many points, long texts counted as several, are in each cell of displayed steps from `low` on."""
        offsets = " ".join(f"WHEN {lane} THEN {self._lanes.offsets[lane]}" for lane in sorted(self._mine))
        bucket = f"(step + CASE lane {offsets} END - {low}) // {cell}"
        found: dict[int, int] = {}
        for kind in kinds:
            is_sized = kind == decode.OTHERS
            sql = snap.query(f"{bucket} AS b, {'octet_length(v)' if is_sized else 'step'} AS n", where, (kind,))
            weight = f"count(*) + sum(n) // {_BYTES_PER_POINT}" if is_sized else "count(*)"
            for b, n in snap.rows(f"SELECT b, {weight} FROM ({sql}) GROUP BY b"):
                found[b] = found.get(b, 0) + n
        return found

    def windows(self, snap: Snapshot, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Ranges of steps with about WINDOW_POINTS points each, whatever their distribution."""
        if high <= low:
            return
        cell = max(1, -(-(high - low) // _CELLS))
        counts = self._weights(snap, low, cell, self.between(low, high), _KINDS)
        begin: int | None = None
        gathered = 0
        stop = low
        for b in sorted(counts):
            first, after = low + b * cell, min(low + (b + 1) * cell, high)
            if begin is not None and gathered + counts[b] > WINDOW_POINTS:
                yield begin, stop
                begin, gathered = None, 0
            if counts[b] > WINDOW_POINTS and cell > 1:
                yield from self.windows(snap, first, after)
                continue
            begin = first if begin is None else begin
            gathered += counts[b]
            stop = after
        if begin is not None:
            yield begin, stop

    def rows(self, snap: Snapshot, where: str) -> list[Json]:
        """Merged rows of the points that meet the condition: per key the value that is last by order key."""
        found: list[tuple[np.ndarray[Any, Any], dict[str, Any]]] = []
        for kind in _KINDS:
            sql = snap.query("key, lane, seq, step, time, v", where, (kind,))
            columns = snap.fetch(sql)
            if not len(columns["step"]):
                continue
            values = columns["v"]
            if kind == decode.OTHERS:
                decoded = np.empty(len(values), dtype=object)
                decoded[:] = [decode.decode_value(bytes(v)) for v in values]
                columns["v"] = decoded
            else:
                columns["v"] = values.astype(object)
            found.append((columns["step"], columns))
        if not found:
            return []
        merged = {
            name: np.concatenate([c[name] for _, c in found]) for name in ("key", "lane", "seq", "step", "time", "v")
        }
        shown = merged["step"] + points.lookup(merged["lane"], dict(self._lanes.offsets))
        order = points.order_of(merged, self._lanes, shown)
        return self._merge(
            shown[order].tolist(),
            merged["time"][order].tolist(),
            merged["key"][order].tolist(),
            merged["v"][order].tolist(),
        )

    def _merge(self, shown: list[int], times: list[int], keys: list[int], values: list[Any]) -> list[Json]:
        rows: list[Json] = []
        current: int | None = None
        row: Json = {}
        names = self._names
        for step, time_us, key, value in zip(shown, times, keys, values, strict=True):
            name = names.get(key)
            if name is None:
                continue
            if step != current:
                current = step
                row = {"_step": step, "_timestamp": 0.0, "_runtime": 0.0}
                rows.append(row)
            row["_timestamp"] = time_us / 1e6
            row["_runtime"] = (time_us - self._created_us) / 1e6
            row[name] = value
        return rows

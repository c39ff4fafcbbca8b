"""The catalog's share of ingest: what each record changes in the catalog, inside one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection
from trackd_proto import records

from trackd_daemon.model import RunChange
from trackd_daemon.store import decode, facts, lineage, names, steps, tables
from trackd_daemon.store.decode import Block, Decoded, Fact, Raw
from trackd_daemon.store.introduction import Introduction, int_or
from trackd_daemon.store.order import order_key, weak_key

MAX_CHANGE_KEYS: Final = 1000
STREAMS: Final = {records.ROW: "default", records.ROW_ORDINAL: "default", records.SYSTEM: "system"}


@dataclass(slots=True)
class Writer:
    """A writer as the catalog knows it."""

    writer_id: bytes
    writer_no: int
    run_no: int
    attempt_no: int
    start_us: int
    role: str
    next_seq: int
    crc32: int
    is_deleted: bool


@dataclass(slots=True)
class Touch:
    """What a commit changes of one run."""

    records: int = 0
    rows: int = 0
    lost: int = 0
    updated_us: int = 0
    needs_refresh: bool = False
    keys: dict[str, None] = field(default_factory=dict)
    last: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """key -> (order key, encoded value)"""
    fields: set[str] = field(default_factory=set)


_INSERT_LOSS: Final = insert(tables.losses).on_conflict_do_nothing()
_INSERT_RAW: Final = insert(tables.raw_records).on_conflict_do_nothing()
_B: Final = sa.bindparam
# Statements are built once: SQLAlchemy takes longer to build one than SQLite to run it.
_ADVANCE: Final = (
    tables.writers.update()
    .where(tables.writers.c.writer_no == _B("no"))
    .values(next_seq=_B("seq"), crc32=_B("crc"), records=tables.writers.c.records + _B("more"))
)
_CREATED: Final = (
    tables.runs.update()
    .where(tables.runs.c.run_no == _B("no"), tables.runs.c.created_us > _B("us"))
    .values(created_us=_B("us"))
)
_MAIN: Final = (
    tables.runs.update()
    .where(tables.runs.c.run_no == _B("no"), sa.func.ifnull(tables.runs.c.main_ord, b"") < _B("ord"))
    .values(entity=_B("e"), user=_B("u"), host=_B("h"), main_ord=_B("ord"))
)
_COUNTERS: Final = (
    tables.runs.update()
    .where(tables.runs.c.run_no == _B("no"))
    .values(
        version=tables.runs.c.version + _B("more"),
        rows=tables.runs.c.rows + _B("more_rows"),
        lost_records=tables.runs.c.lost_records + _B("lost"),
        updated_us=sa.func.max(tables.runs.c.updated_us, _B("updated"), type_=sa.BigInteger),
        heartbeat_us=sa.func.max(tables.runs.c.heartbeat_us, _B("beat"), type_=sa.BigInteger),
    )
)
_DERIVED: Final = (
    tables.runs.update()
    .where(tables.runs.c.run_no == _B("no"))
    .values(
        attempts=_B("n"), exit_state=_B("state"), exit_code=_B("code"), cause=_B("why"), ended_us=_B("ended"),
        last_step=_B("last"),
    )
)  # fmt: skip
_WRITER: Final = (
    sa.select(tables.writers, tables.runs.c.deleted)
    .join(tables.runs, tables.runs.c.run_no == tables.writers.c.run_no)
    .where(tables.writers.c.writer_id == _B("id"))
)
# The hottest statements are plain SQL with tuples: thousands of keys per commit are ordinary.
_LATER: Final = "excluded.ord > key_stats.ord"
_UPSERT_STATS: Final = (
    "INSERT INTO key_stats (run_no, key_no, count, numbers, min, max, ord, value, num, txt, lane_no, step)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_no, key_no) DO UPDATE SET"
    " count = key_stats.count + excluded.count, numbers = key_stats.numbers + excluded.numbers,"
    " min = min(ifnull(key_stats.min, excluded.min), ifnull(excluded.min, key_stats.min)),"
    " max = max(ifnull(key_stats.max, excluded.max), ifnull(excluded.max, key_stats.max)), "
    + ", ".join(
        f"{c} = CASE WHEN {_LATER} THEN excluded.{c} ELSE key_stats.{c} END"
        for c in ("value", "num", "txt", "lane_no", "step", "ord")
    )
)
_UPSERT_LANE: Final = (
    "INSERT INTO lanes (lane_no, run_no, rows, min_step, max_step, min_time, max_time) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (lane_no) DO UPDATE SET rows = rows + excluded.rows,"
    " min_step = min(min_step, excluded.min_step), max_step = max(max_step, excluded.max_step),"
    " min_time = min(min_time, excluded.min_time), max_time = max(max_time, excluded.max_time)"
)


class CatalogCache:
    """Numbers that never change once committed; dropped whole when a transaction fails."""

    def __init__(self) -> None:
        self.writers: dict[bytes, Writer] = {}
        self.keys: dict[tuple[str, str], int] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.writers.clear()
        self.keys.clear()


class CatalogTransaction:
    """One group commit's changes of the catalog. Use within Catalog.write(); then `finish()`."""

    def __init__(self, con: Connection, cache: CatalogCache, now_us: int) -> None:
        self._con = con
        self._cache = cache
        self._now_us = now_us
        self._touched: dict[int, Touch] = {}
        self._resummarize: set[int] = set()
        self._bequeath: set[int] = set()
        """Runs of which the config changed, or that are new forks' parents."""

    # -- who

    def writer(self, writer_id: bytes) -> Writer | None:
        """The writer, if the catalog has met it."""
        known = self._cache.writers.get(writer_id)
        return known or load_writer(self._con, self._cache, writer_id)

    def begin_writer(self, writer_id: bytes, project: str, run_id: str, start: Fact | None) -> Writer:
        """The writer, introduced by its START; without one (lost or unreadable) by what its id and sender say."""
        writer = self.writer(writer_id)
        if writer is not None:
            return writer
        intro = Introduction.of(writer_id, project, run_id, start)
        run_no, attempt_no, is_deleted = self._attempt(intro)
        result = self._con.execute(
            tables.writers.insert().values(
                writer_id=writer_id,
                run_no=run_no,
                attempt_no=attempt_no,
                start_us=intro.start_us,
                role=intro.role,
                pid=intro.pid,
                host=intro.host,
                next_seq=1,
                records=0,
                crc32=0,
                heartbeat_us=0,
            )
        )
        writer_no = int(result.inserted_primary_key[0])  # type: ignore[index]
        writer = Writer(writer_id, writer_no, run_no, attempt_no, intro.start_us, intro.role, 1, 0, is_deleted)
        self._cache.writers[writer_id] = writer
        if not is_deleted:
            self._touch(run_no).needs_refresh = True
        return writer

    def _attempt(self, intro: Introduction) -> tuple[int, int, bool]:
        attempts = tables.attempts
        origin = f"{intro.project}/{intro.run_id}"
        row = self._con.execute(
            sa.select(attempts.c.run_no, attempts.c.attempt_no, attempts.c.start_us, tables.runs.c.deleted)
            .join(tables.runs, tables.runs.c.run_no == attempts.c.run_no)
            .where(attempts.c.attempt == intro.attempt, attempts.c.origin == origin)
        ).first()
        if row is not None:
            if intro.start_us < row.start_us:
                self._con.execute(
                    attempts.update().where(attempts.c.attempt_no == row.attempt_no).values(start_us=intro.start_us)
                )
            return row.run_no, row.attempt_no, bool(row.deleted)
        run_no = self._run(intro)
        values = {"attempt": intro.attempt, "origin": origin, "run_no": run_no, "start_us": intro.start_us}
        result = self._con.execute(attempts.insert().values(**values))
        return run_no, int(result.inserted_primary_key[0]), False  # type: ignore[index]

    def _run(self, intro: Introduction) -> int:
        project_no = names.find_project(self._con, intro.project)
        run_no = None if project_no is None else names.find_run(self._con, project_no, intro.run_id)
        if run_no is not None:
            return run_no
        project_no = names.find_project(self._con, intro.project, follow=False)
        if project_no is None:
            aliased = names.find_project(self._con, intro.project)
            project_no = (
                aliased if aliased is not None else names.create_project(self._con, intro.project, self._now_us)
            )
        result = self._con.execute(
            tables.runs.insert().values(
                project_no=project_no,
                run_id=intro.run_id,
                created_us=intro.created_us,
                updated_us=intro.created_us,
                heartbeat_us=0,
            )
        )
        run_no = int(result.inserted_primary_key[0])  # type: ignore[index]
        self._touch(run_no).fields.add("created")
        lineage.adopt(self._con, run_no, project_no, intro.run_id)
        return run_no

    def key_numbers(self, stream: str, names: Iterable[str]) -> NDArray[np.int32]:
        """Numbers of the keys, made where they are new."""
        cache = self._cache.keys
        names = list(names)
        missing = [n for n in names if (stream, n) not in cache]
        if missing:
            load_keys(self._con, cache, stream, missing)
            new = list(dict.fromkeys(n for n in missing if (stream, n) not in cache))
            if new:
                self._con.execute(insert(tables.keys), [{"stream": stream, "name": n} for n in new])
                load_keys(self._con, cache, stream, new)
        return np.array([cache[stream, n] for n in names], dtype=np.int32)

    # -- what

    def lose(self, writer: Writer, first_seq: int, count: int, reason: str) -> None:
        """Declared loss of [first_seq, first_seq + count)."""
        if not writer.is_deleted:
            self._con.execute(
                _INSERT_LOSS,
                {"writer_no": writer.writer_no, "first_seq": first_seq, "count": count, "reason": reason},
            )
            touch = self._touch(writer.run_no)
            touch.records += count
            touch.lost += count
            touch.fields.add("lost_records")
        self._advance(writer, first_seq + count, writer.crc32, 0)

    def apply(self, writer: Writer, decoded: Decoded) -> None:
        """All records of a decoded batch."""
        if not writer.is_deleted:
            self._apply(writer, decoded)
        self._advance(writer, decoded.first_seq + decoded.count, decoded.crc32, decoded.count)

    def _apply(self, writer: Writer, decoded: Decoded) -> None:
        touch = self._touch(writer.run_no)
        touch.records += decoded.count
        if decoded.max_time is not None:
            touch.updated_us = max(touch.updated_us, decoded.max_time)
        for raw in decoded.raws:
            self._keep_raw(writer, raw)
        for fact in decoded.facts:
            try:
                self._fact(writer, touch, fact)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                data = decode.encode_value([fact.kind, fact.time_us, 0, fact.body])
                self._keep_raw(writer, Raw(fact.seq, f"undecodable: {error}"[:500], data))
        lanes = []
        for rows in decoded.rows:
            lane = steps.lane_number(writer.writer_no, rows.kind)
            lanes.append((lane, writer.run_no, rows.count, rows.min_step, rows.max_step, rows.min_time, rows.max_time))
            if rows.kind != records.SYSTEM:
                touch.rows += rows.count
                touch.needs_refresh = True
        if lanes:
            self._con.exec_driver_sql(_UPSERT_LANE, lanes)
        stats: list[tuple[Any, ...]] = []
        for block in decoded.blocks:
            stats.extend(self._stats(writer, touch, block))
        if stats:
            self._con.exec_driver_sql(_UPSERT_STATS, stats)

    def _stats(self, writer: Writer, touch: Touch, block: Block) -> Iterable[tuple[Any, ...]]:
        stream = STREAMS[block.kind]
        numbers = self.key_numbers(stream, block.keys)
        rows = len(block.seq)
        low, high = _finite_range(block)
        last = int(np.lexsort((block.seq, block.time_us))[-1]) if rows > 1 else 0
        order = order_key(writer.start_us, int(block.time_us[last]), writer.writer_id, int(block.seq[last]))
        lane, step = steps.lane_number(writer.writer_no, block.kind), int(block.step[last])
        values = block.values[:, last].tolist()
        is_number = block.column != decode.OTHERS
        has_room = stream == "default" and len(touch.keys) < 4 * MAX_CHANGE_KEYS
        for index, (key_no, value) in enumerate(zip(numbers.tolist(), values, strict=True)):
            encoded = decode.encode_value(value) if is_number else value
            number, words = facts.sortable(value) if is_number else facts.sortable(decode.decode_value(value))
            if has_room:
                key = block.keys[index]
                touch.keys[key] = None
                seen = touch.last.get(key)
                if seen is None or order > seen[0]:
                    touch.last[key] = (order, encoded)
            count = rows if is_number else 0
            yield (
                writer.run_no, key_no, rows, count, low[index], high[index], order, encoded, number, words, lane, step,
            )  # fmt: skip

    def _keep_raw(self, writer: Writer, raw: Raw) -> None:
        where = {"writer_no": writer.writer_no}
        self._con.execute(
            _INSERT_RAW, where | {"seq": raw.seq, "count": raw.count, "reason": raw.reason, "data": raw.data}
        )
        if raw.is_loss:
            loss = where | {"first_seq": raw.seq, "count": raw.count, "reason": raw.reason.partition(":")[0]}
            self._con.execute(_INSERT_LOSS, loss)
            touch = self._touch(writer.run_no)
            touch.lost += raw.count
            touch.fields.add("lost_records")

    def _fact(self, writer: Writer, touch: Touch, fact: Fact) -> None:
        order = order_key(writer.start_us, fact.time_us, writer.writer_id, fact.seq)
        body = fact.body
        if fact.kind == records.START:
            self._start(writer, touch, body, order)
        elif fact.kind == records.CONFIG:
            facts.set_config(self._con, writer.run_no, "config", body, order)
            self._bequeath.add(writer.run_no)
            touch.fields.add("config")
        elif fact.kind == records.META:
            facts.set_config(self._con, writer.run_no, "meta", body, order)
            touch.fields.add("meta")
        elif fact.kind == records.SUMMARY:
            self._summary(writer.run_no, touch, body, order)
            touch.fields.add("summary")
        elif fact.kind == records.EXIT:
            self._exit(writer, body, order, fact.time_us)
            touch.fields.add("state")
            touch.needs_refresh = True
        elif fact.kind == records.UPDATE:
            touch.fields.update(facts.set_fields(self._con, writer.run_no, body, order))

    def _start(self, writer: Writer, touch: Touch, body: dict[str, Any], order: bytes) -> None:
        created = int_or(body.get("created_us"), writer.start_us)
        self._con.execute(_CREATED, {"no": writer.run_no, "us": created})
        touch.fields.add("state")
        touch.needs_refresh = True
        if body.get("branch"):
            self._branch(writer, body)
        if writer.role != "main":
            return
        host = (body.get("writer") or {}).get("host")
        main = {"e": body.get("entity"), "u": body.get("user"), "h": host}
        texts = {k: v if v is None else str(v) for k, v in main.items()}
        self._con.execute(_MAIN, {"no": writer.run_no, "ord": order, **texts})
        said = {k: body[k] for k in ("name", "notes", "tags", "group", "job_type") if body.get(k)}
        if body.get("is_name_generated") and "name" in said:
            facts.set_fields(self._con, writer.run_no, {"name": said.pop("name")}, weak_key(order))
        facts.set_fields(self._con, writer.run_no, said, order)

    def _branch(self, writer: Writer, body: dict[str, Any]) -> None:
        parent, step = str(body["branch"]["run_id"]), int(body["branch"]["step"])
        if not -(2**61) < step < 2**61:
            raise ValueError("a branch at a step out of range")
        if parent == body.get("run_id"):
            lineage.branch(self._con, writer.attempt_no, writer.run_no, step, None, None)
            return
        r = tables.runs
        project_no = self._con.execute(sa.select(r.c.project_no).where(r.c.run_no == writer.run_no)).scalar_one()
        parent_no = names.find_run(self._con, project_no, parent)
        lineage.branch(self._con, writer.attempt_no, writer.run_no, step, parent, parent_no)
        if parent_no is not None:
            self._bequeath.add(parent_no)

    def _summary(self, run_no: int, touch: Touch, body: dict[str, Any], order: bytes) -> None:
        sets, dels = body.get("set") or {}, body.get("del") or []
        if not facts.set_summary(self._con, run_no, sets, dels, order):
            return
        for path, value in sets.items():
            if len(touch.last) < 4 * MAX_CHANGE_KEYS:
                touch.last[str(path)] = (b"\xff" * 41, decode.encode_value(value))
        self._resummarize.add(run_no)

    def _exit(self, writer: Writer, body: dict[str, Any], order: bytes, time_us: int) -> None:
        attempts = tables.attempts
        code = body.get("exit_code")
        strength = b"\x01" if writer.role != "main" else b"\x00" if body.get("is_assumed") else b"\x02"
        self._con.execute(
            attempts.update()
            .where(
                attempts.c.attempt_no == writer.attempt_no,
                sa.func.ifnull(attempts.c.exit_ord, b"") < strength + order,
            )
            .values(
                exit_ord=strength + order,
                exit_state=str(body.get("state") or "finished"),
                exit_code=None if code is None else int_or(code, 0),
                cause=None if body.get("cause") is None else str(body["cause"]),
                ended_us=time_us,
            )
        )
        trace = body.get("traceback")
        facts.set_traceback(self._con, writer.run_no, str(trace) if trace else None, order)

    # -- closing

    def _touch(self, run_no: int) -> Touch:
        return self._touched.setdefault(run_no, Touch())

    def _advance(self, writer: Writer, next_seq: int, crc32: int, count: int) -> None:
        writer.next_seq, writer.crc32 = next_seq, crc32
        self._con.execute(_ADVANCE, {"no": writer.writer_no, "seq": next_seq, "crc": crc32, "more": count})

    def finish(self) -> dict[int, Touch]:
        """Bring the touched runs' own rows up to date; what was touched, by run."""
        facts.inherit(self._con, self._bequeath)
        for run_no in self._resummarize:
            facts.summary_leaves(self._con, run_no)
        refreshed = set()
        for run_no, touch in self._touched.items():
            self._con.execute(
                _COUNTERS,
                {
                    "no": run_no, "more": touch.records, "more_rows": touch.rows, "lost": touch.lost,
                    "updated": touch.updated_us, "beat": min(touch.updated_us, self._now_us),
                },
            )  # fmt: skip
            if touch.needs_refresh:
                refreshed.add(run_no)
                self._con.execute(_DERIVED, {"no": run_no} | derived(self._con, run_no))
        # What is shown of a fork follows from its parent's rows too.
        while refreshed := lineage.children(self._con, refreshed):
            for run_no in refreshed - self._touched.keys():
                self._con.execute(_DERIVED, {"no": run_no} | derived(self._con, run_no))
        return self._touched


def _finite_range(block: Block) -> tuple[list[float | None], list[float | None]]:
    """Least and greatest finite value per key."""
    if block.column == decode.OTHERS:
        nothing: list[float | None] = [None] * len(block.keys)
        return nothing, nothing
    values = block.values
    low, high = values.min(axis=1), values.max(axis=1)
    if block.column == decode.FLOATS and not (np.isfinite(low).all() and np.isfinite(high).all()):
        finite = np.isfinite(values)
        low = np.where(finite, values, np.inf).min(axis=1)
        high = np.where(finite, values, -np.inf).max(axis=1)
        return [None if v == np.inf else v for v in low.tolist()], [None if v == -np.inf else v for v in high.tolist()]
    return low.astype(np.float64).tolist(), high.astype(np.float64).tolist()


def load_writer(con: Connection, cache: CatalogCache, writer_id: bytes) -> Writer | None:
    """A writer from the database into the cache."""
    row = con.execute(_WRITER, {"id": writer_id}).first()
    if row is None:
        return None
    writer = Writer(
        writer_id, row.writer_no, row.run_no, row.attempt_no, row.start_us, row.role,
        row.next_seq, row.crc32, bool(row.deleted),
    )  # fmt: skip
    cache.writers[writer_id] = writer
    return writer


def load_keys(con: Connection, cache: dict[tuple[str, str], int], stream: str, names: Sequence[str]) -> None:
    """Numbers of the keys that exist, into the cache."""
    keys = tables.keys
    for first in range(0, len(names), 500):
        some = names[first : first + 500]
        for row in con.execute(
            sa.select(keys.c.key_no, keys.c.name).where(keys.c.stream == stream, keys.c.name.in_(some))
        ):
            cache[stream, row.name] = row.key_no


def derived(con: Connection, run_no: int) -> dict[str, Any]:
    """What a run's row repeats of its attempts and lanes."""
    attempts = lineage.attempts(con, run_no)
    latest = attempts[-1]
    return {
        "n": len(attempts), "state": latest.exit_state, "code": latest.exit_code, "why": latest.cause,
        "ended": latest.ended_us, "last": lineage.load_lanes(con, run_no).last_step,
    }  # fmt: skip


def change_of(project: str, run_id: str, version: int, touch: Touch) -> RunChange:
    """What watchers are told."""
    last = {k: decode.decode_value(v) for k, (_, v) in list(touch.last.items())[:MAX_CHANGE_KEYS]}
    has_more = len(touch.keys) > MAX_CHANGE_KEYS
    keys = [] if has_more else list(touch.keys)
    return RunChange(project, run_id, version, keys, has_more, last, sorted(touch.fields))

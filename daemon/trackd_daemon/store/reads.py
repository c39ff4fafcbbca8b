"""What the catalog answers about runs, keys, writers, projects."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from trackd_daemon.store import decode, steps, tables
from trackd_daemon.store.catalog_write import load_lanes

Json = dict[str, Any]
LOST_CONTACT_US: Final = 60_000_000


def state_of(exit_state: str | None, heartbeat_us: int, now_us: int) -> str:
    """The advisory state of a run."""
    if exit_state is not None:
        return exit_state
    return "running" if now_us - heartbeat_us <= LOST_CONTACT_US else "lost contact"


def put(target: Json, path: str, value: Any) -> None:
    """Set a dotted path in nested maps; what stands in its way is replaced."""
    *heads, tail = path.split(".")
    for head in heads:
        inner = target.get(head)
        if not isinstance(inner, dict):
            inner = target[head] = {}
        target = inner
    target[tail] = value


def remove(target: Json, path: str) -> None:
    """Delete a dotted path, if it is there, and maps that it leaves empty."""
    head, _, rest = path.partition(".")
    if not rest:
        target.pop(head, None)
        return
    inner = target.get(head)
    if isinstance(inner, dict):
        remove(inner, rest)
        if not inner:
            del target[head]


def summary(con: Connection, run_no: int) -> Json:
    """Automatic last values, and over them what was set explicitly, in its order."""
    s, k, f = tables.key_stats, tables.keys, tables.facts
    automatic = con.execute(
        sa.select(k.c.name, s.c.value, s.c.ord)
        .join(k, k.c.key_no == s.c.key_no)
        .where(s.c.run_no == run_no, k.c.stream == "default")
        .order_by(k.c.name)
    ).all()
    explicit = con.execute(
        sa.select(f.c.path, f.c.value, f.c.ord, f.c.deleted)
        .where(f.c.run_no == run_no, f.c.section == "summary")
        .order_by(f.c.ord, f.c.path)
    ).all()
    result: Json = {}
    gone = [(row.path, row.ord) for row in explicit if row.deleted]
    for row in automatic:
        # A deletion hides what was logged before it; what is logged later shows again.
        if any(row.ord < ord_ and (row.name == path or row.name.startswith(f"{path}.")) for path, ord_ in gone):
            continue
        put(result, row.name, decode.decode_value(row.value))
    layer: Json = {}
    for row in explicit:
        if row.deleted:
            remove(layer, row.path)
        else:
            put(layer, row.path, decode.decode_value(row.value))
    _overlay(result, layer)
    return result


def _overlay(target: Json, layer: Json) -> None:
    for key, value in layer.items():
        inner = target.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            _overlay(inner, value)
        else:
            target[key] = value


def section(con: Connection, run_no: int, name: str) -> Json:
    """Config or meta: top-level entries, each as last written."""
    f = tables.facts
    rows = con.execute(
        sa.select(f.c.path, f.c.value).where(f.c.run_no == run_no, f.c.section == name).order_by(f.c.path)
    )
    return {row.path: decode.decode_value(row.value) for row in rows}


def run_json(con: Connection, row: Row[Any], project: str, beat_us: int, now_us: int) -> Json:
    """A run as docs/http-api.md has it; `row` is a row of tables.runs."""
    ended = row.ended_us
    state = state_of(row.exit_state, max(row.heartbeat_us, beat_us), now_us)
    return {
        "project": project,
        "run_id": row.run_id,
        "name": row.name or row.run_id,
        "entity": row.entity,
        "state": state,
        "exit_code": row.exit_code,
        "cause": row.cause,
        "created_us": row.created_us,
        "updated_us": row.updated_us,
        "ended_us": ended,
        "duration_s": max((ended if ended is not None else row.updated_us) - row.created_us, 0) / 1e6,
        "notes": row.notes,
        "tags": msgspec.json.decode(row.tags) if row.tags else [],
        "group": row.group,
        "job_type": row.job_type,
        "user": row.user,
        "host": row.host,
        "attempts": row.attempts,
        "last_step": row.last_step,
        "rows": row.rows,
        "config": section(con, row.run_no, "config"),
        "summary": summary(con, row.run_no),
        "meta": section(con, row.run_no, "meta"),
        "lost_records": row.lost_records,
        "version": row.version,
    }


def keys(con: Connection, run_no: int, stream: str) -> list[Json]:
    """Statistics of every key of a run, by name."""
    s, k = tables.key_stats, tables.keys
    offsets = load_lanes(con, run_no).offsets
    rows = con.execute(
        sa.select(k.c.name, s.c.count, s.c.numbers, s.c.min, s.c.max, s.c.value, s.c.lane_no, s.c.step)
        .join(k, k.c.key_no == s.c.key_no)
        .where(s.c.run_no == run_no, k.c.stream == stream)
    ).all()
    return sorted(
        (
            {
                "key": name,
                "type": "number" if numbers else "other",
                "count": count,
                "last": decode.decode_value(value),
                "last_step": step + offsets.get(lane_no, 0),
                "min": low,
                "max": high,
            }
            for name, count, numbers, low, high, value, lane_no, step in rows
        ),
        key=lambda key: str(key["key"]),
    )


def writers(con: Connection, run_no: int) -> list[Json]:
    """The run's writers with what was declared lost of each, by writer id."""
    w, ls = tables.writers, tables.losses
    rows = con.execute(sa.select(w).where(w.c.run_no == run_no).order_by(w.c.writer_id)).all()
    losses: dict[int, list[Json]] = {}
    lost = sa.select(ls).join(w, w.c.writer_no == ls.c.writer_no).where(w.c.run_no == run_no)
    for row in con.execute(lost.order_by(ls.c.writer_no, ls.c.first_seq)):
        found = losses.setdefault(row.writer_no, [])
        before = found[-1] if found else None
        # Neighbouring ranges are one loss, however they were cut on the way.
        if before and before["reason"] == row.reason and before["first_seq"] + before["count"] == row.first_seq:
            before["count"] += row.count
        else:
            found.append({"first_seq": row.first_seq, "count": row.count, "reason": row.reason})
    return [
        {
            "writer_id": row.writer_id.hex(),
            "role": row.role,
            "pid": row.pid,
            "host": row.host,
            "next_seq": row.next_seq,
            "records": row.records,
            "crc32": row.crc32,
            "losses": losses.get(row.writer_no, []),
        }
        for row in rows
    ]


def lanes_total(lanes: Sequence[steps.Lane]) -> int:
    """Rows in these lanes."""
    return sum(lane.rows for lane in lanes)

"""What the catalog answers about runs, keys, writers, projects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from trackd_proto import records

from trackd_daemon.store import decode, lineage, steps, tables

Json = dict[str, Any]
LOST_CONTACT_US: Final = 60_000_000
_SILENT: Final = "nothing has been heard from it for a minute; why is not known"


def state_of(exit_state: str | None, beats_us: Sequence[int], now_us: int) -> str:
    """The advisory state of a run. `beats_us`: when it was heard of; what is ahead of us by more than a minute was
    noted before the clock was set back, and says nothing."""
    if exit_state is not None:
        return exit_state
    is_near = any(abs(now_us - beat_us) <= LOST_CONTACT_US for beat_us in beats_us)
    return "running" if is_near else "lost contact"


def is_heard(heartbeat_us: Any, now_us: int) -> sa.ColumnElement[bool]:
    """The same as a condition on a column."""
    condition: sa.ColumnElement[bool] = heartbeat_us.between(now_us - LOST_CONTACT_US, now_us + LOST_CONTACT_US)
    return condition


def put(target: Json, path: str, value: Any) -> None:
    """Set a dotted path in nested maps; what stands in its way is replaced."""
    *heads, tail = path.split(".", decode.MOST_DEPTH)
    for head in heads:
        inner = target.get(head)
        if not isinstance(inner, dict):
            inner = target[head] = {}
        target = inner
    target[tail] = value


def remove(target: Json, path: str) -> None:
    """Delete a dotted path, if it is there, and maps that it leaves empty."""
    *heads, tail = path.split(".", decode.MOST_DEPTH)
    outer: list[tuple[Json, str]] = []
    for head in heads:
        inner = target.get(head)
        if not isinstance(inner, dict):
            return
        outer.append((target, head))
        target = inner
    target.pop(tail, None)
    while outer and not target:
        target, head = outer.pop()
        del target[head]


@dataclass(slots=True)
class _Facts:
    """What is stored beside a run's own row."""

    automatic: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """(key, value, order key)"""
    explicit: list[tuple[str, bytes, bytes, int]] = field(default_factory=list)
    """(path, value, order key, is deleted), in order"""
    config: Json = field(default_factory=dict)
    meta: Json = field(default_factory=dict)
    exit: Json = field(default_factory=dict)


def _facts(con: Connection, run_nos: Sequence[int]) -> dict[int, _Facts]:
    """Facts of several runs in two queries."""
    s, k, f = tables.key_stats, tables.keys, tables.facts
    result = {run_no: _Facts() for run_no in run_nos}
    for first in range(0, len(run_nos), 500):
        some = list(run_nos[first : first + 500])
        for run_no, name, value, order in con.execute(
            sa.select(s.c.run_no, k.c.name, s.c.value, s.c.ord)
            .join(k, k.c.key_no == s.c.key_no)
            .where(s.c.run_no.in_(some), s.c.lane_no % 4 != steps.SYSTEM_LANE)
        ):
            result[run_no].automatic.append((name, value, order))
        for run_no, part, path, value, order, deleted in con.execute(
            sa.select(f.c.run_no, f.c.section, f.c.path, f.c.value, f.c.ord, f.c.deleted)
            .where(f.c.run_no.in_(some))
            .order_by(f.c.run_no, f.c.section, f.c.path)
        ):
            if part == "summary":
                result[run_no].explicit.append((path, value, order, deleted))
            else:
                facts = result[run_no]
                target = {"config": facts.config, "exit": facts.exit}.get(part, facts.meta)
                target[path] = decode.decode_value(value)
    for facts in result.values():
        facts.automatic.sort()
        facts.explicit.sort(key=lambda e: (e[2], e[0]))
    return result


def summary(facts: _Facts) -> Json:
    """Automatic last values, and over them what was set explicitly, in its order."""
    result: Json = {}
    gone = [(path, order) for path, _, order, deleted in facts.explicit if deleted]
    for name, value, order in facts.automatic:
        # A deletion hides what was logged before it; what is logged later shows again.
        if any(order < at and (name == path or name.startswith(f"{path}.")) for path, at in gone):
            continue
        put(result, name, decode.decode_value(value))
    layer: Json = {}
    for path, value, _, deleted in facts.explicit:
        if deleted:
            remove(layer, path)
        else:
            put(layer, path, decode.decode_value(value))
    _overlay(result, layer)
    return result


def _overlay(target: Json, layer: Json) -> None:
    for key, value in layer.items():
        inner = target.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            _overlay(inner, value)
        else:
            target[key] = value


def run_json(con: Connection, row: Row[Any], project: str, beats: Mapping[int, int], now_us: int) -> Json:
    """One run as docs/http-api.md has it, with the traceback that a page of runs leaves out."""
    facts = _facts(con, [row.run_no])[row.run_no]
    found = _run_json(row, facts, project, beats.get(row.run_no, 0), now_us)
    return found | {"traceback": facts.exit.get("traceback") if found["state"] == "failed" else None}


def runs_json(
    con: Connection, rows: Sequence[Row[Any]], projects: Mapping[int, str], beats: Mapping[int, int], now_us: int
) -> list[Json]:
    """Runs as docs/http-api.md has them; `rows` are rows of tables.runs, `projects` their projects' names."""
    facts = _facts(con, [row.run_no for row in rows])
    return [
        _run_json(row, facts[row.run_no], projects[row.project_no], beats.get(row.run_no, 0), now_us) for row in rows
    ]


def _run_json(row: Row[Any], facts: _Facts, project: str, beat_us: int, now_us: int) -> Json:
    ended = row.ended_us
    state = state_of(row.exit_state, (row.heartbeat_us, beat_us), now_us)
    return {
        "project": project,
        "run_id": row.run_id,
        "name": row.name or row.run_id,
        "entity": row.entity,
        "state": state,
        "exit_code": row.exit_code,
        "cause": _SILENT if row.exit_state is None and state == "lost contact" else row.cause,
        "traceback": None,
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
        "config": facts.config,
        "summary": summary(facts),
        "meta": facts.meta,
        "lost_records": row.lost_records,
        "version": row.version,
    }


def keys(con: Connection, run_no: int, stream: str) -> list[Json]:
    """Statistics of every key of a run, by name.

    Of a fork also of its parent's keys: over all of the parent's rows, and without a last value where that is
    not shown.
    """
    s, k = tables.key_stats, tables.keys
    lanes = lineage.load_lanes(con, run_no)
    rows = con.execute(
        sa.select(k.c.name, s.c.count, s.c.numbers, s.c.min, s.c.max, s.c.value, s.c.lane_no, s.c.step, s.c.run_no)
        .join(k, k.c.key_no == s.c.key_no)
        .where(s.c.run_no.in_({*lanes.runs, run_no}), (s.c.lane_no % 4 == steps.SYSTEM_LANE) == (stream == "system"))
    ).all()
    found: dict[str, Json] = {}
    # The run's own, then what it has of others.
    for name, count, numbers, low, high, value, lane_no, step, owner in sorted(
        rows, key=lambda row: row.run_no != run_no
    ):
        if owner != run_no and stream == "system":
            continue
        shown = step + lanes.offsets.get(lane_no, 0)
        is_shown = owner == run_no or (lane_no in lanes.lanes and step <= lanes.clipped(lane_no, step))
        known = found.get(name)
        if known is None:
            found[name] = {
                "key": name, "type": "number" if numbers else "other", "count": count,
                "last": decode.decode_value(value) if is_shown else None, "last_step": shown if is_shown else None,
                "min": low, "max": high,
            }  # fmt: skip
        else:
            known["count"] += count
            known["type"] = "number" if numbers else known["type"]
            known["min"] = min((v for v in (known["min"], low) if v is not None), default=None)
            known["max"] = max((v for v in (known["max"], high) if v is not None), default=None)
    return sorted(found.values(), key=lambda key: str(key["key"]))


def attempts(con: Connection, run_no: int, beat_us: int, now_us: int) -> list[Json]:
    """The run's attempts, from the first on. Steps are those of the attempt's own rows, shown on the curve or not."""
    w, b, r = tables.writers, tables.branches, tables.runs
    heartbeat_us = con.execute(sa.select(r.c.heartbeat_us).where(r.c.run_no == run_no)).scalar_one()
    mains = {}
    for row in con.execute(sa.select(w).where(w.c.run_no == run_no).order_by(w.c.role == "main", w.c.writer_no.desc())):
        mains[row.attempt_no] = row
    branches = {row.attempt_no: row for row in con.execute(sa.select(b).where(b.c.run_no == run_no))}
    rows = lineage.attempts(con, run_no)
    lanes = lineage.load_lanes(con, run_no)
    result: list[Json] = []
    for number, row in enumerate(rows, 1):
        own = lanes.of_attempt((row.start_us, row.attempt))
        history = [no for no in own.lanes if steps.lane_kind(no) != records.SYSTEM]
        spans = [span for no in history if (span := own.shown(no))]
        heard_us = max((lane.max_time for lane in own.lanes.values()), default=row.start_us)
        # Who lives is known of the run. An attempt before the latest lives beside it if it was heard of since.
        is_beside = row is rows[-1] or heard_us >= rows[-1].start_us
        state = state_of(row.exit_state, (heartbeat_us, beat_us) if is_beside else (), now_us)
        branch = branches.get(row.attempt_no)
        main = mains.get(row.attempt_no)
        result.append(
            {
                "number": number,
                "attempt": row.attempt,
                "state": state,
                "exit_code": row.exit_code,
                "cause": _SILENT if row.exit_state is None and state == "lost contact" else row.cause,
                "started_us": row.start_us,
                "updated_us": max(heard_us, row.start_us),
                "ended_us": row.ended_us,
                "host": main and main.host,
                "pid": main and main.pid,
                "rows": sum(own.lanes[no].rows for no in history),
                "first_step": min((low for low, _ in spans), default=None),
                "last_step": max((high for _, high in spans), default=None),
                "superseded_from": min(
                    (lanes.cuts[no] + lanes.offsets[no] for no in history if no in lanes.cuts), default=None
                ),
                "from_run": branch and branch.parent,
                "from_step": branch and branch.step,
                "from_known": branch and branch.parent and branch.parent_no is not None,
            }
        )
    return result


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

"""Lists over many runs: projects, runs (filtered, sorted, paged), columns."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from trackd_daemon.errors import QueryError
from trackd_daemon.store import filters, reads, steps, tables
from trackd_daemon.store.filter_sql import Operand, Paths, compile_filter
from trackd_daemon.store.names import find_project

Json = dict[str, Any]
MAX_LIMIT = 10_000


def projects(con: Connection, now_us: int, beats: Mapping[int, int]) -> list[Json]:
    """See docs/http-api.md; newest activity first."""
    p, r = tables.projects, tables.runs
    beating = [run_no for run_no, beat_us in beats.items() if abs(now_us - beat_us) <= reads.LOST_CONTACT_US]
    is_heard = sa.or_(reads.is_heard(r.c.heartbeat_us, now_us), r.c.run_no.in_(beating))
    is_live = sa.and_(r.c.exit_state.is_(None), is_heard)
    rows = con.execute(
        sa.select(
            p.c.name,
            sa.func.count(r.c.run_no).label("runs"),
            sa.func.sum(sa.case((is_live, 1), else_=0)).label("live"),
            sa.func.min(r.c.created_us).label("created_us"),
            sa.func.max(r.c.updated_us).label("updated_us"),
        )
        .join(r, sa.and_(r.c.project_no == p.c.project_no, r.c.deleted == 0))
        .group_by(p.c.project_no)
        .order_by(sa.desc("updated_us"), p.c.name)
    )
    return [dict(row._mapping) for row in rows]


def runs(con: Connection, project: str, *, where: str, sort: str, limit: int, cursor: str, now_us: int) -> Json:
    """See ports.ReadPort.runs. Pages are cut by key, not by offset: a run that appears meanwhile moves no other."""
    paths = Paths(con, now_us)
    tree = filters.parse(where)
    path, is_descending = filters.parse_sort(sort)
    operand = paths.operand(path, 0)
    condition = None if tree is None else compile_filter(tree, paths)
    order = _Order(path, operand, is_descending)
    behind = order.after(cursor) if cursor else None
    project_no = find_project(con, project)
    if project_no is None:
        return {"runs": [], "next_cursor": "", "total": 0}
    r = tables.runs
    chosen = [r.c.project_no == project_no, r.c.deleted == 0]
    if condition is not None:
        chosen.append(condition)
    total = con.execute(sa.select(sa.func.count()).select_from(paths.source).where(*chosen)).scalar_one()
    if behind is not None:
        chosen.append(behind)
    limit = min(max(limit, 1), MAX_LIMIT)
    rows = con.execute(
        sa.select(r, *order.columns).select_from(paths.source).where(*chosen).order_by(*order.by).limit(limit + 1)
    ).all()
    page = rows[:limit]
    name = con.execute(sa.select(tables.projects.c.name).where(tables.projects.c.project_no == project_no)).scalar_one()
    return {
        "runs": reads.runs_json(con, page, {project_no: name}, {}, now_us),
        "next_cursor": order.cursor(page[-1]) if len(rows) > limit else "",
        "total": total,
    }


class _Order:
    """Numbers, then texts, then runs without the value; equal ones by run number."""

    def __init__(self, path: str, operand: Operand, is_descending: bool) -> None:
        r = tables.runs.c
        self._is_descending = is_descending
        self._path = path
        if path in ("created", "updated", "rows"):
            # Never null and stored as such: this order is the index's own.
            column = {"created": r.created_us, "updated": r.updated_us, "rows": r.rows}[path]
            self._keys: list[tuple[Any, bool]] = [(column, is_descending), (r.run_no, is_descending)]
        else:
            rank = sa.case((operand.number.is_not(None), 0), (operand.text.is_not(None), 1), else_=2)
            number = sa.func.ifnull(operand.number, 0)
            text = sa.func.ifnull(operand.text, "")
            self._keys = [(rank, False), (number, is_descending), (text, is_descending), (r.run_no, is_descending)]

    @property
    def columns(self) -> list[Any]:
        return [key.label(f"order_{index}") for index, (key, _) in enumerate(self._keys)]

    @property
    def by(self) -> list[Any]:
        return [key.desc() if is_descending else key.asc() for key, is_descending in self._keys]

    def cursor(self, row: sa.Row[Any]) -> str:
        values = [getattr(row, f"order_{index}") for index in range(len(self._keys))]
        packed = msgspec.msgpack.encode([self._path, self._is_descending, values])
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def after(self, cursor: str) -> Any:
        """Runs that stand behind the cursor's."""
        try:
            packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            path, is_descending, values = msgspec.msgpack.decode(packed, type=tuple[str, bool, list[float | int | str]])
        except (binascii.Error, msgspec.DecodeError, ValueError) as error:
            raise QueryError("not a cursor of this hub") from error
        if (path, is_descending, len(values)) != (self._path, self._is_descending, len(self._keys)):
            raise QueryError("this cursor belongs to another sort")
        result: Any = sa.false()
        for (key, descending), value in reversed(list(zip(self._keys, values, strict=True))):
            beyond = key < value if descending else key > value
            result = sa.or_(beyond, sa.and_(key == value, result))
        return result


def columns(con: Connection, project: str) -> list[Json]:
    """See docs/http-api.md."""
    project_no = find_project(con, project)
    if project_no is None:
        return []
    r, leaf, s, k = tables.runs, tables.leaves, tables.key_stats, tables.keys
    mine = (r.c.project_no == project_no, r.c.deleted == 0)
    total = con.execute(sa.select(sa.func.count()).select_from(r).where(*mine)).scalar_one()
    if not total:
        return []
    found: list[Json] = [
        {"path": path, "kind": "run", "type": kind, "runs": total}
        for path, kind in (
            ("name", "string"), ("state", "string"), ("tags", "string"), ("group", "string"), ("user", "string"),
            ("host", "string"), ("job_type", "string"), ("created", "number"), ("updated", "number"),
            ("duration", "number"), ("last_step", "number"), ("rows", "number"),
        )
    ]  # fmt: skip

    def counted(source: Any) -> list[Any]:
        return [
            sa.func.count().label("runs"),
            sa.func.count(source.c.num).label("numbers"),
            sa.func.sum(sa.case((source.c.txt.in_(["true", "false"]), 1), else_=0)).label("bools"),
        ]

    leaves = con.execute(
        sa.select(leaf.c.section, leaf.c.path, *counted(leaf))
        .join(r, r.c.run_no == leaf.c.run_no)
        .where(*mine, leaf.c.deleted == 0)
        .group_by(leaf.c.section, leaf.c.path)
    )
    merged: dict[tuple[str, str], list[int]] = {}
    for row in leaves:
        merged[row.section, row.path] = [row.runs, row.numbers, row.bools]
    automatic = con.execute(
        sa.select(k.c.name, *counted(s))
        .join(k, k.c.key_no == s.c.key_no)
        .join(r, r.c.run_no == s.c.run_no)
        .where(*mine, s.c.lane_no % 4 != steps.SYSTEM_LANE)
        .group_by(s.c.key_no)
    )
    for row in automatic:
        counts = merged.setdefault(("summary", row.name), [0, 0, 0])
        merged["summary", row.name] = [
            min(counts[0] + row.runs, total), counts[1] + row.numbers, counts[2] + row.bools,
        ]  # fmt: skip
    for (section, path), (number_of_runs, numbers, bools) in sorted(merged.items()):
        kind = "number" if numbers >= number_of_runs else "bool" if bools >= number_of_runs else "string"
        kind = "mixed" if 0 < numbers < number_of_runs or 0 < bools < number_of_runs else kind
        found.append({"path": f"{section}.{path}", "kind": section, "type": kind, "runs": number_of_runs})
    return found

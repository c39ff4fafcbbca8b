"""Lists over many runs: projects, runs (filtered, sorted, paged), columns."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from trackd_daemon.store import reads, tables
from trackd_daemon.store.catalog_write import find_project

Json = dict[str, Any]


def projects(con: Connection, now_us: int, beats: Mapping[int, int]) -> list[Json]:
    """See docs/http-api.md; newest activity first."""
    p, r = tables.projects, tables.runs
    is_live = sa.and_(r.c.exit_state.is_(None), r.c.heartbeat_us >= now_us - reads.LOST_CONTACT_US)
    is_live = sa.or_(is_live, sa.and_(r.c.exit_state.is_(None), r.c.run_no.in_(list(beats))))
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
    """See ports.ReadPort.runs."""
    project_no = find_project(con, project)
    if project_no is None:
        return {"runs": [], "next_cursor": "", "total": 0}
    r = tables.runs
    rows = con.execute(
        sa.select(r).where(r.c.project_no == project_no, r.c.deleted == 0).order_by(r.c.created_us.desc()).limit(limit)
    ).all()
    return {
        "runs": [reads.run_json(con, row, project, 0, now_us) for row in rows],
        "next_cursor": "",
        "total": len(rows),
    }


def columns(con: Connection, project: str) -> list[Json]:
    """See docs/http-api.md."""
    return []

"""What a person changes at the hub.

Each function works inside a catalog transaction and returns what watchers are told, or None if there is no such run or
project.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from trackd_daemon.errors import ConflictError
from trackd_daemon.model import RunChange
from trackd_daemon.store import lineage, tables
from trackd_daemon.store.facts import set_fields
from trackd_daemon.store.names import create_project, find_project, find_run
from trackd_daemon.store.order import edit_key

EDITABLE: Final = ("name", "notes", "tags", "group")


def _find(con: Connection, project: str, run_id: str) -> int | None:
    project_no = find_project(con, project)
    return None if project_no is None else find_run(con, project_no, run_id)


def _bump(con: Connection, run_no: int) -> Any:
    r, p = tables.runs, tables.projects
    con.execute(r.update().where(r.c.run_no == run_no).values(version=r.c.version + 1))
    return con.execute(
        sa.select(p.c.name, r.c.run_id, r.c.version, r.c.project_no)
        .join(p, p.c.project_no == r.c.project_no)
        .where(r.c.run_no == run_no)
    ).one()


def edit_run(
    con: Connection, project: str, run_id: str, changes: Mapping[str, Any], now_us: int
) -> Sequence[RunChange] | None:
    """Set fields, or move the run to another project. Raises ConflictError if that has a run of this id."""
    run_no = _find(con, project, run_id)
    if run_no is None:
        return None
    before = _bump(con, run_no)
    order = edit_key(now_us, before.version)
    fields = set_fields(con, run_no, {k: v for k, v in changes.items() if k in EDITABLE}, order)
    target = changes.get("project")
    result: list[RunChange] = []
    if target is not None and target != before.name:
        _move(con, run_no, before, str(target), now_us)
        result.append(RunChange(before.name, before.run_id, before.version, fields=("deleted",)))
        fields |= {"project", "created"}
    after = _bump(con, run_no)
    result.append(RunChange(after.name, after.run_id, after.version, fields=sorted(fields)))
    return result


def _move(con: Connection, run_no: int, before: Any, target: str, now_us: int) -> None:
    project_no = find_project(con, target)
    if project_no is None:
        project_no = create_project(con, target, now_us)
    if project_no == before.project_no:
        return
    if find_run(con, project_no, before.run_id) not in (None, run_no):
        raise ConflictError(f"project {target!r} already has a run {before.run_id!r}")
    r, a = tables.runs, tables.run_aliases
    con.execute(r.update().where(r.c.run_no == run_no).values(project_no=project_no))
    con.execute(a.delete().where(a.c.project_no == project_no, a.c.run_id == before.run_id))
    alias = {"project_no": before.project_no, "run_id": before.run_id, "run_no": run_no}
    con.execute(
        insert(a).on_conflict_do_update(index_elements=["project_no", "run_id"], set_={"run_no": run_no}), alias
    )


_HIDDEN: Final = 2
"""`runs.deleted`: nobody finds it any more, its rows stay for its forks."""


def _delete_runs(con: Connection, run_nos: Sequence[int]) -> None:
    """Leave only what later records of these runs need to be recognised; the points go at the next compaction. What
    forks of them show stays, until the last of these is deleted."""
    r = tables.runs
    con.execute(r.update().where(r.c.run_no.in_(list(run_nos))).values(deleted=_HIDDEN, version=r.c.version + 1))
    con.execute(tables.run_aliases.delete().where(tables.run_aliases.c.run_no.in_(list(run_nos))))
    left = set(run_nos)
    while left:
        parents: set[int] = set()
        for run_no in left:
            if not lineage.children(con, [run_no]):
                parents |= lineage.parents(con, [run_no])
                _empty(con, run_no)
        hidden = sa.select(r.c.run_no).where(r.c.run_no.in_(parents), r.c.deleted == _HIDDEN)
        left = set(con.execute(hidden).scalars())


def _empty(con: Connection, run_no: int) -> None:
    for table in (tables.key_stats, tables.facts, tables.leaves, tables.lanes, tables.branches):
        con.execute(table.delete().where(table.c.run_no == run_no))
    writers = sa.select(tables.writers.c.writer_no).where(tables.writers.c.run_no == run_no)
    for table in (tables.losses, tables.raw_records):
        con.execute(table.delete().where(table.c.writer_no.in_(writers)))
    con.execute(tables.runs.update().where(tables.runs.c.run_no == run_no).values(deleted=1))


def delete_run(con: Connection, project: str, run_id: str) -> Sequence[RunChange] | None:
    """Delete a run and all that is in it."""
    run_no = _find(con, project, run_id)
    if run_no is None:
        return None
    row = _bump(con, run_no)
    _delete_runs(con, [run_no])
    return [RunChange(row.name, row.run_id, row.version + 1, fields=("deleted",))]


def rename_project(con: Connection, project: str, name: str) -> Sequence[RunChange] | None:
    """Rename a project; the old name leads to it until a project of that name is made. Raises ConflictError."""
    p, a = tables.projects, tables.project_aliases
    project_no = find_project(con, project)
    if project_no is None:
        return None
    other = find_project(con, name, follow=False)
    if other == project_no:
        return []
    if other is not None:
        raise ConflictError(f"there is already a project {name!r}")
    old = con.execute(sa.select(p.c.name).where(p.c.project_no == project_no)).scalar_one()
    con.execute(a.delete().where(a.c.name == name))
    con.execute(p.update().where(p.c.project_no == project_no).values(name=name))
    con.execute(
        insert(a).on_conflict_do_update(index_elements=["name"], set_={"project_no": project_no}),
        {"name": old, "project_no": project_no},
    )
    r = tables.runs
    rows = con.execute(
        sa.select(r.c.run_id, r.c.version).where(r.c.project_no == project_no, r.c.deleted == 0).limit(1000)
    )
    return [RunChange(name, row.run_id, row.version, fields=("project",)) for row in rows]


def delete_project(con: Connection, project: str) -> Sequence[RunChange] | None:
    """Delete a project with all its runs."""
    project_no = find_project(con, project)
    if project_no is None:
        return None
    r, p, a = tables.runs, tables.projects, tables.project_aliases
    name = con.execute(sa.select(p.c.name).where(p.c.project_no == project_no)).scalar_one()
    runs = con.execute(
        sa.select(r.c.run_no, r.c.run_id, r.c.version).where(r.c.project_no == project_no, r.c.deleted == 0)
    ).all()
    _delete_runs(con, [row.run_no for row in runs])
    con.execute(a.delete().where(a.c.project_no == project_no))
    # The row stays for the deleted runs' sake, under a name that nobody can give.
    con.execute(p.update().where(p.c.project_no == project_no).values(name=f"\0deleted {project_no}"))
    return [RunChange(name, row.run_id, row.version + 1, fields=("deleted",)) for row in runs]


def request_stop(con: Connection, project: str, run_id: str) -> Sequence[RunChange] | None:
    """Ask the run's writers to stop."""
    run_no = _find(con, project, run_id)
    if run_no is None:
        return None
    con.execute(tables.runs.update().where(tables.runs.c.run_no == run_no).values(stop_requested=1))
    row = _bump(con, run_no)
    return [RunChange(row.name, row.run_id, row.version, fields=("state",))]

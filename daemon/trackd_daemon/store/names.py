"""Finding projects and runs by what people call them."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from trackd_daemon.store import tables

_B: Final = sa.bindparam
# Statements are built once: SQLAlchemy takes longer to build one than SQLite to run it.
_PROJECT: Final = sa.select(tables.projects.c.project_no).where(tables.projects.c.name == _B("name"))
_PROJECT_ALIAS: Final = sa.select(tables.project_aliases.c.project_no).where(
    tables.project_aliases.c.name == _B("name")
)
_RUN: Final = sa.select(tables.runs.c.run_no).where(
    tables.runs.c.project_no == _B("no"), tables.runs.c.run_id == _B("id"), tables.runs.c.deleted == 0
)
_RUN_ALIAS: Final = (
    sa.select(tables.run_aliases.c.run_no)
    .join(tables.runs, tables.runs.c.run_no == tables.run_aliases.c.run_no)
    .where(
        tables.run_aliases.c.project_no == _B("no"),
        tables.run_aliases.c.run_id == _B("id"),
        tables.runs.c.deleted == 0,
    )
)


def find_project(con: Connection, name: str, *, follow: bool = True) -> int | None:
    """Number of a project, following the alias that a rename left."""
    found: int | None = con.execute(_PROJECT, {"name": name}).scalar()
    if found is None and follow:
        found = con.execute(_PROJECT_ALIAS, {"name": name}).scalar()
    return found


def create_project(con: Connection, name: str, now_us: int) -> int:
    """A new project."""
    result = con.execute(tables.projects.insert().values(name=name, created_us=now_us))
    return int(result.inserted_primary_key[0])  # type: ignore[index]


def find_run(con: Connection, project_no: int, run_id: str) -> int | None:
    """Number of a run that is not deleted, following the alias that a move left."""
    found: int | None = con.execute(_RUN, {"no": project_no, "id": run_id}).scalar()
    if found is None:
        found = con.execute(_RUN_ALIAS, {"no": project_no, "id": run_id}).scalar()
    return found

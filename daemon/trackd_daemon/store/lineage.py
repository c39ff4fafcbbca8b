"""Where attempts begin: the lanes of a run, those included that it shows of the run that it is a fork of.

A fork refers to its parent's rows. Nothing is copied, so that it costs nothing and does not depend on which of the two
arrives first. Who is whose parent is settled once, by number: renaming and moving change nothing.
"""

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from trackd_daemon.store import steps, tables

MAX_GENERATIONS: Final = 100
"""A fork of a fork of … beyond this many begins without its parent's rows."""
_B: Final = sa.bindparam
_LANES: Final = (
    sa.select(
        tables.lanes,
        tables.writers.c.writer_id,
        tables.writers.c.start_us,
        tables.attempts.c.start_us.label("attempt_start"),
        tables.attempts.c.attempt,
    )
    .join(tables.writers, tables.writers.c.writer_no == tables.lanes.c.lane_no // 4)
    .join(tables.attempts, tables.attempts.c.attempt_no == tables.writers.c.attempt_no)
    .where(tables.lanes.c.run_no == _B("no"))
)
_ATTEMPTS: Final = (
    sa.select(tables.attempts)
    .where(tables.attempts.c.run_no == _B("no"))
    .order_by(tables.attempts.c.start_us, tables.attempts.c.attempt)
)
# Plain SQL where every commit asks: SQLAlchemy takes longer to build a statement than SQLite to run it.
_BRANCHES: Final = (
    "SELECT a.start_us, a.attempt, b.parent, b.parent_no, b.step FROM branches b"
    " JOIN attempts a ON a.attempt_no = b.attempt_no WHERE b.run_no = ?"
)
_WAITING: Final = (
    "SELECT b.attempt_no, b.run_no FROM branches b JOIN runs r ON r.run_no = b.run_no"
    " WHERE b.parent_no IS NULL AND b.parent = ? AND r.project_no = ?"
)


def attempts(con: Connection, run_no: int) -> list[Any]:
    """The run's attempts in order of their start: rows of tables.attempts."""
    return list(con.execute(_ATTEMPTS, {"no": run_no}))


def load_lanes(con: Connection, run_no: int, attempt: int | None = None) -> steps.Lanes:
    """The run's lanes with their offsets; of the attempt of this number, from 1 in order of their start, or of all."""
    lanes = _resolved(con, run_no, None)
    if attempt is None:
        return lanes
    listed = attempts(con, run_no)
    chosen = listed[attempt - 1] if 0 < attempt <= len(listed) else None
    return lanes.of_attempt(chosen and (chosen.start_us, chosen.attempt))


def _resolved(con: Connection, run_no: int, until_us: int | None) -> steps.Lanes:
    """`until_us`: as the run was for a fork that began then. What its later attempts changed is not the fork's."""
    rows = con.execute(_LANES, {"no": run_no}).all()
    branches = con.exec_driver_sql(_BRANCHES, (run_no,)).all()
    if until_us is not None and rows:
        # The first attempt always counts: clocks of two machines differ.
        until_us = max(until_us, min(r.attempt_start for r in rows))
        rows = [r for r in rows if r.attempt_start <= until_us]
        branches = [b for b in branches if b.start_us <= until_us]
    return steps.resolve(
        (
            steps.Lane(
                r.lane_no, (r.attempt_start, r.attempt), r.start_us, r.writer_id,
                r.rows, r.min_step, r.max_step, r.min_time, r.max_time, run_no,
            )
            for r in rows
        ),
        {
            (b.start_us, b.attempt): steps.Branch(
                b.step, b.parent, None if b.parent_no is None else _resolved(con, b.parent_no, b.start_us)
            )
            for b in branches
        },
    )  # fmt: skip


def branch(con: Connection, attempt_no: int, run_no: int, step: int, parent: str | None, parent_no: int | None) -> None:
    """An attempt of this run says that it begins behind `step`: of the run `parent`, or of its own (None)."""
    add = insert(tables.branches).on_conflict_do_nothing()
    added = con.execute(add, {"attempt_no": attempt_no, "run_no": run_no, "parent": parent, "step": step})
    if added.rowcount and parent_no is not None:
        _settle(con, attempt_no, run_no, parent_no)


def adopt(con: Connection, run_no: int, project_no: int, run_id: str) -> None:
    """A run is new: it is the parent that forks which arrived before it were waiting for."""
    for attempt_no, child in con.exec_driver_sql(_WAITING, (run_id, project_no)).all():
        _settle(con, attempt_no, child, run_no)


def _settle(con: Connection, attempt_no: int, run_no: int, parent_no: int) -> None:
    """Note the parent's number, unless the two would be each other's ancestors or the line be too long."""
    generation, line = 0, {parent_no}
    while line:
        generation += 1
        if run_no in line or generation > MAX_GENERATIONS:
            return
        line = parents(con, line)
    b = tables.branches
    con.execute(b.update().where(b.c.attempt_no == attempt_no).values(parent_no=parent_no))


def parents(con: Connection, run_nos: Iterable[int]) -> set[int]:
    """Runs that any of these is a fork of."""
    return _related(con, "parent_no", "run_no", run_nos)


def pairs(con: Connection, run_nos: Iterable[int]) -> list[tuple[int, int]]:
    """(parent, fork) for each fork of these."""
    return [(parent, child) for parent in sorted(run_nos) for child in sorted(children(con, [parent]))]


def children(con: Connection, run_nos: Iterable[int]) -> set[int]:
    """Forks of any of these."""
    return _related(con, "run_no", "parent_no", run_nos)


def _related(con: Connection, wanted: str, given: str, run_nos: Iterable[int]) -> set[int]:
    listed = ", ".join(str(int(no)) for no in run_nos)
    found = con.exec_driver_sql(f"SELECT {wanted} FROM branches WHERE {given} IN ({listed}) AND parent_no IS NOT NULL")
    return {no for (no,) in found}

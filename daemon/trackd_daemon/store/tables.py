"""Tables of the catalog (SQLAlchemy Core; SQLite by default, nothing here is bound to it).

Numbers (`run_no`, `writer_no`, …) are the catalog's own and never reused: the series store knows only them, so that a
run may be renamed or moved without touching a point. `ord` columns hold order keys (order.py): the greater one wins.
`value` columns hold msgpack. A deleted run leaves its row, attempts and writers behind (`deleted` = 1), so that records
still on their way find where they belonged and are dropped. One that has forks keeps its rows too until the last of
them is deleted (`deleted` = 2).
"""

from typing import Final

from sqlalchemy import REAL, BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, text

SCHEMA_VERSION: Final = 1

metadata: Final = MetaData()


def _number(name: str) -> "Column[int]":
    return Column(name, Integer, primary_key=True, autoincrement=True)


info = Table("info", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

projects = Table(
    "projects",
    metadata,
    _number("project_no"),
    Column("name", Text, nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

project_aliases = Table(
    "project_aliases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("project_no", Integer, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    _number("run_no"),
    Column("project_no", ForeignKey("projects.project_no"), nullable=False),
    Column("run_id", Text, nullable=False),
    Column("deleted", Integer, nullable=False, server_default="0"),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("exit_state", Text),
    Column("exit_code", BigInteger),
    Column("cause", Text),
    Column("ended_us", BigInteger),
    Column("name", Text),
    Column("name_ord", LargeBinary),
    Column("notes", Text),
    Column("notes_ord", LargeBinary),
    Column("tags", Text),
    Column("tags_ord", LargeBinary),
    Column("group", Text),
    Column("group_ord", LargeBinary),
    Column("job_type", Text),
    Column("job_type_ord", LargeBinary),
    Column("entity", Text),
    Column("user", Text),
    Column("host", Text),
    Column("main_ord", LargeBinary),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("last_step", BigInteger),
    Column("lost_records", BigInteger, nullable=False, server_default="0"),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("stop_requested", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
Index("runs_by_id", runs.c.project_no, runs.c.run_id, unique=True, sqlite_where=text("deleted = 0"))
Index("runs_by_created", runs.c.project_no, runs.c.deleted, runs.c.created_us, runs.c.run_no)

run_aliases = Table(
    "run_aliases",
    metadata,
    Column("project_no", Integer, primary_key=True, autoincrement=False),
    Column("run_id", Text, primary_key=True),
    Column("run_no", Integer, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    _number("attempt_no"),
    Column("attempt", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("run_no", ForeignKey("runs.run_no"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("exit_ord", LargeBinary),
    Column("exit_state", Text),
    Column("exit_code", BigInteger),
    Column("cause", Text),
    Column("ended_us", BigInteger),
    sqlite_autoincrement=True,
)
Index("attempts_by_id", attempts.c.attempt, attempts.c.origin, unique=True)
Index("attempts_by_run", attempts.c.run_no)

branches = Table(
    "branches",
    metadata,
    Column("attempt_no", Integer, primary_key=True, autoincrement=False),
    Column("run_no", Integer, nullable=False),
    Column("parent", Text),
    Column("parent_no", Integer),
    Column("step", BigInteger, nullable=False),
)
"""Attempts that say where they begin (steps.Branch). `parent`: id of the run that it is a fork of, null for a rewind;
`parent_no` its number, as soon as anything of it has arrived."""
Index("branches_by_run", branches.c.run_no)
Index("branches_by_parent", branches.c.parent_no)

writers = Table(
    "writers",
    metadata,
    _number("writer_no"),
    Column("writer_id", LargeBinary, nullable=False, unique=True),
    Column("run_no", ForeignKey("runs.run_no"), nullable=False),
    Column("attempt_no", ForeignKey("attempts.attempt_no"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("role", Text, nullable=False),
    Column("pid", BigInteger),
    Column("host", Text),
    Column("next_seq", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
Index("writers_by_run", writers.c.run_no)

lanes = Table(
    "lanes",
    metadata,
    Column("lane_no", Integer, primary_key=True, autoincrement=False),
    Column("run_no", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("min_step", BigInteger, nullable=False),
    Column("max_step", BigInteger, nullable=False),
    Column("min_time", BigInteger, nullable=False),
    Column("max_time", BigInteger, nullable=False),
)
Index("lanes_by_run", lanes.c.run_no)

losses = Table(
    "losses",
    metadata,
    Column("writer_no", Integer, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

raw_records = Table(
    "raw_records",
    metadata,
    Column("writer_no", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    _number("key_no"),
    Column("stream", Text, nullable=False),
    Column("name", Text, nullable=False),
)
Index("keys_by_name", keys.c.stream, keys.c.name, unique=True)

key_stats = Table(
    "key_stats",
    metadata,
    Column("run_no", Integer, primary_key=True, autoincrement=False),
    Column("key_no", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("numbers", BigInteger, nullable=False),
    Column("min", REAL),
    Column("max", REAL),
    Column("ord", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("num", REAL),
    Column("txt", Text),
    Column("lane_no", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

facts = Table(
    "facts",
    metadata,
    Column("run_no", Integer, primary_key=True, autoincrement=False),
    Column("section", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("ord", LargeBinary, nullable=False),
    Column("deleted", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

leaves = Table(
    "leaves",
    metadata,
    Column("run_no", Integer, primary_key=True, autoincrement=False),
    Column("section", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("ord", LargeBinary, nullable=False),
    Column("deleted", Integer, nullable=False),
    Column("num", REAL),
    Column("txt", Text),
    sqlite_with_rowid=False,
)

hot_files = Table(
    "hot_files",
    metadata,
    Column("hot_no", Integer, primary_key=True, autoincrement=False),
    Column("sealed", Integer, nullable=False),
)

series_applied = Table(
    "series_applied",
    metadata,
    Column("writer_no", Integer, primary_key=True, autoincrement=False),
    Column("next_seq", BigInteger, nullable=False),
)

parts = Table(
    "parts",
    metadata,
    _number("part_no"),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

part_runs = Table(
    "part_runs",
    metadata,
    Column("part_no", Integer, primary_key=True, autoincrement=False),
    Column("run_no", Integer, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index("part_runs_by_run", part_runs.c.run_no)

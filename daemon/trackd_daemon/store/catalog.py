"""The catalog's database: opening, transactions, schema version. What stands in it is in tables.py."""

import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.store import tables

FILE_NAME: Final = "catalog.sqlite"


class Catalog:
    """One SQLite file in WAL mode; one writing transaction at a time, readers beside it."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine
        self._write_lock = threading.RLock()

    @classmethod
    def open(cls, directory: Path) -> "Catalog":
        """Open or create. Raises StoreError for a newer schema or a file that is not a catalog, touching nothing."""
        path = directory / FILE_NAME
        if path.exists():
            _check_version(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        engine = sa.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False}, pool_size=16, max_overflow=64
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        catalog = cls(path, engine)
        with catalog.write() as con:
            tables.metadata.create_all(con)
            add = sa.dialects.sqlite.insert(tables.info).on_conflict_do_nothing()
            con.execute(add, {"name": "schema_version", "value": str(tables.SCHEMA_VERSION)})
            con.execute(add, {"name": "store_id", "value": secrets.token_hex(16)})
        return catalog

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed (synced) at the end. Raises StoreFullError or StoreError for the database's own."""
        try:
            with self._write_lock, self._engine.begin() as con:
                yield con
        except sa.exc.OperationalError as error:
            raise translate(error, self.path) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        try:
            with self._engine.connect() as con:
                yield con
        except sa.exc.OperationalError as error:
            raise translate(error, self.path) from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def translate(error: sa.exc.OperationalError, path: Path) -> StoreError:
    """What the caller must do about SQLite's error."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    text = str(error.orig)
    if code == 13 or "disk is full" in text or ("disk I/O error" in text and _is_full(path)):
        return StoreFullError(f"no space left for the catalog {path}: {text}")
    return StoreError(f"the catalog {path} failed: {text}")


def _is_full(path: Path) -> bool:
    stat = os.statvfs(path.parent)
    return stat.f_bavail * stat.f_frsize < 1 << 20


def _check_version(path: Path) -> None:
    if path.stat().st_size == 0:
        return
    # Even a read-only connection makes SQLite's side files, unless told that nobody writes: true where there is no log.
    options = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    con = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
    try:
        row = con.execute("SELECT value FROM info WHERE name = 'schema_version'").fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return
        raise StoreError(f"{path} is not a readable catalog ({error}); move it away or restore it") from error
    finally:
        con.close()
    found = int(row[0]) if row else 0
    if found > tables.SCHEMA_VERSION:
        raise StoreError(
            f"the store at {path.parent} has schema version {found}, this trackd knows up to version "
            f"{tables.SCHEMA_VERSION}: use the newer trackd that wrote it. Nothing was changed."
        )


def _configure(con: Any, _record: Any) -> None:
    con.isolation_level = None
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("PRAGMA synchronous=FULL")
    con.execute("PRAGMA cache_size=-4000")
    con.execute("PRAGMA temp_store=MEMORY")
    con.create_function("regexp", 2, _regexp, deterministic=True)


def _begin(con: Connection) -> None:
    con.exec_driver_sql("BEGIN")


@lru_cache(maxsize=64)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _regexp(pattern: str, value: object) -> bool:
    """`value REGEXP pattern` as SQLite calls it."""
    return value is not None and _pattern(pattern).search(str(value)) is not None

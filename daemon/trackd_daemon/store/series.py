"""The series store: points in DuckDB. A small hot file that ingest appends to, and immutable sorted Parquet parts.

::

    store/series/hot-<n>.duckdb          appended to; sealed when it is large or idle, then compacted and unlinked
    store/series/part-<n>.<f|i|o>.parquet    sorted by (run, key, lane, step, seq); one file per kind of value
    store/series/part-<n>.r.parquet          rollups of the part's numbers (rollups.py)

Which of them count stands in the catalog's manifest; any other file is what a crash left and is unlinked at open.
A point is (run, key, lane, seq, step, time, v): see steps.py for lane and step. f64, i64 and other values
(msgpack) stand in tables of their own, so that every value comes back as it was.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.store import decode

log = logging.getLogger(__name__)

COLUMNS: Final = ("run", "key", "lane", "seq", "step", "time", "v")
KINDS: Final = {decode.FLOATS: "DOUBLE", decode.INTS: "BIGINT", decode.OTHERS: "BLOB"}
ROLLUPS: Final = "r"
PART_FILES: Final = (*KINDS, ROLLUPS)
_APPEND_S: Final = 10.0
"""So long a read waits for points that the catalog has already: many times what a commit takes on a slow disk."""
Columns = dict[str, NDArray[Any]]
_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class Source:
    """A hot file or a part, and how many reads are on it."""

    number: int
    is_part: bool
    runs: frozenset[int] = frozenset()
    """Runs in a part; a hot file may hold any."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Kind of value (or ROLLUPS, where a part has them) -> what to write after FROM."""
    readers: int = 0
    is_retired: bool = False


class Snapshot:
    """The sources of some runs, held so that none is unlinked meanwhile. Use within Series.snapshot()."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, sources: Sequence[Source], repair: Callable[[StoreError], bool]
    ) -> None:
        self._con = con
        self._sources = sources
        self._repair = repair

    @property
    def sources(self) -> Sequence[Source]:
        """Hot files and parts, in no particular order."""
        return self._sources

    def query(self, select: str, where: str, kinds: Sequence[str] = (decode.FLOATS, decode.INTS)) -> str:
        """`select … from … where …` over every source, united. `v` is a double unless one kind alone is asked."""
        parts = []
        for source in self._sources:
            for kind in kinds:
                if kind in source.tables:
                    value = "v" if len(kinds) == 1 else "CAST(v AS DOUBLE) AS v"
                    inner = f"SELECT run, key, lane, seq, step, time, {value} FROM {source.tables[kind]} WHERE {where}"
                    parts.append(f"SELECT {select} FROM ({inner})")
        if not parts:
            none = ", ".join(f"0::BIGINT AS {c}" for c in COLUMNS[:-1]) + f", NULL::{KINDS[kinds[0]]} AS v"
            return f"SELECT {select} FROM (SELECT {none}) WHERE false"
        return " UNION ALL ".join(parts)

    def fetch(self, sql: str) -> Columns:
        """The answer as numpy columns."""
        columns = self._ask(sql, lambda con: dict(con.fetchnumpy()))
        # DuckDB takes NaN in a numpy column for NULL and returns masked arrays; no point is ever NULL but for that.
        return {name: _unmasked(column) for name, column in columns.items()}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer as tuples."""
        return self._ask(sql, lambda con: con.fetchall())

    def _ask(self, sql: str, fetch: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        try:
            return fetch(self._con.execute(sql))
        except duckdb.Error as error:
            failure = translate(error)
            if not self._repair(failure):
                raise failure from error
        try:
            return fetch(self._con.execute(sql))
        except duckdb.Error as error:
            raise translate(error) from error


class Series:
    """All points of a hub. Appends come from one thread at a time; snapshots may be taken from any."""

    def __init__(self, directory: Path, memory_limit_bytes: int) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        temp = directory / "tmp"
        temp.mkdir(mode=0o700, exist_ok=True)
        self._config: dict[str, Any] = {
            "threads": 2,
            "memory_limit": f"{memory_limit_bytes // 1024}KiB",
            "temp_directory": str(temp),
            "enable_external_file_cache": False,
        }
        self._con = duckdb.connect(":memory:", config=self._config)
        self._con.execute("SET parquet_metadata_cache = true")
        self._lock = threading.Lock()
        self._repair_lock = threading.Lock()
        self._sources: dict[tuple[bool, int], Source] = {}
        self._active = -1
        self._retired: list[Source] = []
        self._is_level = threading.Event()
        """Unset while points are on their way that the catalog has already."""
        self._is_level.set()
        self._is_detached = False
        """The active hot file was closed to reopen it, which did not work yet."""
        self.hot_points = 0
        """Points in the active hot file."""
        self.hot_text = 0
        """Bytes of its values that are not numbers."""

    # -- files

    def hot_path(self, number: int) -> Path:
        """Where a hot file stands."""
        return self.directory / f"hot-{number}.duckdb"

    def part_path(self, number: int, kind: str) -> Path:
        """Where a part's values of one kind, or its rollups, stand."""
        return self.directory / f"part-{number}.{kind}.parquet"

    def attach_hot(self, number: int, *, is_active: bool) -> None:
        """Open a hot file, creating it if needed."""
        path, name = self.hot_path(number), f"hot{number}"
        self._attach(number)
        for kind, sql_type in KINDS.items():
            self._ask(
                f"CREATE TABLE IF NOT EXISTS {name}.{kind} (run INTEGER, key INTEGER, lane INTEGER, seq BIGINT,"
                f" step BIGINT, time BIGINT, v {sql_type})"
            )
        self._ask(f"CREATE TABLE IF NOT EXISTS {name}.applied (writer INTEGER, next_seq BIGINT)")
        path.chmod(0o600)
        source = Source(number, False, tables={kind: f"{name}.{kind}" for kind in KINDS})
        with self._lock:
            self._sources[False, number] = source
        if is_active:
            self.activate(number)

    def make_hot(self, number: int) -> None:
        """Open a new hot file. What a failed attempt left of it holds nothing: the manifest never listed it."""
        if (False, number) in self._sources and self._is_usable(number):
            return
        self._detach(number)
        self._unlink_hot(number)
        self.attach_hot(number, is_active=False)

    def _attach(self, number: int) -> None:
        path = _quoted(self.hot_path(number))
        self._ask(f"ATTACH '{path}' AS hot{number} (STORAGE_VERSION 'v1.2.0')")

    def _detach(self, number: int) -> None:
        """Close a hot file. DuckDB also complains after it did, about a checkpoint that found no space."""
        try:
            self._ask(f"DETACH DATABASE IF EXISTS hot{number}")
        except StoreError as error:
            log.warning("while closing the hot file hot%d: %s", number, error)

    def _unlink_hot(self, number: int) -> None:
        path = self.hot_path(number)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.wal").unlink(missing_ok=True)

    def _is_usable(self, number: int) -> bool:
        try:
            self._one(f"SELECT count(*) FROM hot{number}.applied")
        except StoreError:
            return False
        return True

    def activate(self, number: int) -> None:
        """Append to this hot file from now on."""
        self._active = number
        self._count()

    def _count(self) -> None:
        self.hot_points = self.count_hot(self._active)
        try:
            self.hot_text = int(self._one(f"SELECT ifnull(sum(octet_length(v)), 0) FROM hot{self._active}.o"))
        except StoreError:  # so much that even counting it takes more memory than there is
            self.hot_text = self.hot_path(self._active).stat().st_size

    def repair(self, failure: StoreError) -> bool:
        """Reopen the active hot file if DuckDB gave it up (a checkpoint found no space); whether it is usable again.

        What its write-ahead log holds is replayed: a commit that reported the failure may stand after all.
        """
        text = str(failure)
        # "does not exist": between the two halves of another thread's repair.
        if "invalidated" not in text and "does not exist" not in text and not self._is_detached:
            return False
        with self._repair_lock:
            if self._is_usable(self._active):
                self._is_detached = False
                return True  # another thread was here first
            # Set before anything is closed: of what is not open, no error says that it was given up.
            self._is_detached = True
            try:
                self._detach(self._active)
                self._attach(self._active)
                self._count()
            except (StoreError, OSError) as error:
                log.warning("the hot file hot%d cannot be reopened yet: %s", self._active, error)
                return False
            self._is_detached = False
        return True

    def count_hot(self, number: int) -> int:
        """Points in a hot file."""
        counts = " + ".join(f"(SELECT count(*) FROM hot{number}.{kind})" for kind in KINDS)
        return int(self._one(f"SELECT {counts}"))

    def add_part(self, number: int, runs: frozenset[int]) -> None:
        """A part that the manifest lists."""
        source = self._part(number, runs)
        with self._lock:
            self._sources[True, number] = source

    def _part(self, number: int, runs: frozenset[int]) -> Source:
        tables = {}
        for kind in PART_FILES:
            path = self.part_path(number, kind)
            if path.exists():
                tables[kind] = f"read_parquet('{_quoted(path)}')"
        return Source(number, True, runs, tables)

    def replace(self, old: Sequence[tuple[bool, int]], parts: Mapping[int, frozenset[int]]) -> None:
        """Show new parts (and the runs in them) instead of old sources, unlinked once no read is on them."""
        new = [self._part(number, runs) for number, runs in parts.items()]
        with self._lock:  # all at once: a reader that saw both would count every point twice
            self._sources.update({(True, source.number): source for source in new})
            for name in old:
                source = self._sources.pop(name, None)
                if source is not None:
                    source.is_retired = True
                    self._retired.append(source)
        self.unlink_retired()

    def unlink_retired(self) -> None:
        """Unlink what is retired and not being read. What cannot be unlinked, the next start unlinks."""
        with self._lock:
            free = [s for s in self._retired if not s.readers]
            self._retired = [s for s in self._retired if s.readers]
        for source in free:
            try:
                self._unlink(source)
            except OSError as error:
                log.warning("what is not needed any more cannot be unlinked: %s", error)

    def _unlink(self, source: Source) -> None:
        if not source.is_part:
            self._detach(source.number)
            self._unlink_hot(source.number)
            return
        for kind in PART_FILES:
            self.part_path(source.number, kind).unlink(missing_ok=True)

    def sweep(self, hots: set[int], parts: set[int]) -> None:
        """Unlink files that the manifest does not know."""
        known = {self.hot_path(n).name for n in hots} | {f"{self.hot_path(n).name}.wal" for n in hots}
        known |= {self.part_path(n, kind).name for n in parts for kind in PART_FILES}
        for path in self.directory.iterdir():
            if path.is_file() and path.name not in known:
                path.unlink()

    # -- reading

    @contextmanager
    def snapshot(self, runs: set[int] | None = None) -> Iterator[Snapshot]:
        """The sources that may hold these runs (None: all), with every point that the catalog knows of by now."""
        self._is_level.wait(_APPEND_S)
        with self._lock:
            held = [s for s in self._sources.values() if runs is None or not s.is_part or s.runs & runs]
            for source in held:
                source.readers += 1
        cursor = self._con.cursor()
        try:
            yield Snapshot(cursor, held, self.repair)
        finally:
            cursor.close()
            with self._lock:
                for source in held:
                    source.readers -= 1
                has_work = any(s.is_retired and not s.readers for s in held)
            if has_work:
                self.unlink_retired()

    def applied(self, number: int) -> dict[int, int]:
        """Next seq per writer number, as far as one hot file knows."""
        return dict(self._ask(f"SELECT writer, max(next_seq) FROM hot{number}.applied GROUP BY writer"))

    # -- writing

    @contextmanager
    def behind(self) -> Iterator[None]:
        """While the catalog has points that are still to be appended: who begins to read waits for the end of this."""
        self._is_level.clear()
        try:
            yield
        finally:
            self._is_level.set()

    @property
    def active(self) -> int:
        """Number of the hot file that is appended to."""
        return self._active

    def append(self, points: Mapping[str, Columns], applied: Mapping[int, int]) -> None:
        """One transaction: these columns by kind, and the next seq of these writers.

        Raises StoreError or StoreFullError; then only `applied()` can tell whether the transaction stands.
        """
        name = f"hot{self._active}"
        cursor = self._con.cursor()
        marks = {
            "writer": np.fromiter(applied.keys(), dtype=np.int32, count=len(applied)),
            "next_seq": np.fromiter(applied.values(), dtype=np.int64, count=len(applied)),
        }
        try:
            cursor.execute("BEGIN")
            for kind, columns in points.items():
                cursor.register("points", columns)
                cursor.execute(f"INSERT INTO {name}.{kind} SELECT {', '.join(COLUMNS)} FROM points")
            cursor.register("marks", marks)
            cursor.execute(f"INSERT INTO {name}.applied SELECT writer, next_seq FROM marks")
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            raise translate(error) from error
        finally:
            cursor.close()
        self.hot_points += sum(len(c["seq"]) for c in points.values())
        if decode.OTHERS in points:
            self.hot_text += sum(map(len, points[decode.OTHERS]["v"].tolist()))

    def run_on_cursor(self, work: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        """For maintenance: `work` with a cursor of its own."""
        cursor = self._con.cursor()
        try:
            return work(cursor)
        except duckdb.Error as error:
            raise translate(error) from error
        finally:
            cursor.close()

    def _ask(self, sql: str) -> list[Any]:
        # With a cursor of its own: a connection takes one thread at a time, and refuses or mixes up any other.
        rows: list[Any] = self.run_on_cursor(lambda cursor: cursor.execute(sql).fetchall())
        return rows

    def _one(self, sql: str) -> Any:
        return self._ask(sql)[0][0]

    def close(self) -> None:
        """Close every file. Nothing needs to be written: what was appended is committed."""
        self._con.close()


def translate(error: duckdb.Error) -> StoreError:
    """What the caller must do about DuckDB's error."""
    text = str(error)
    is_full = "No space left" in text or "out of disk space" in text or "Disk quota exceeded" in text
    if is_full:
        return StoreFullError(f"no space left for the series store: {text}")
    return StoreError(f"the series store failed: {text}")


def _unmasked(column: Any) -> NDArray[Any]:
    if isinstance(column, np.ma.MaskedArray) and column.dtype.kind == "f":
        filled: NDArray[Any] = column.filled(np.nan)
        return filled
    plain: NDArray[Any] = column
    return plain


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")

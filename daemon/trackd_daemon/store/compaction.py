"""Compaction: from the hot file to sorted, immutable, compressed parts.

Steps, each of which a crash may follow:
1. seal: a new empty hot file is made; one catalog transaction lists it, marks the old one sealed and takes over its
   applied marks. Before it the new file is a stray, after it ingest appends there.
2. a sealed hot file is sorted into a part, or several if it holds much long text (files synced); one catalog
   transaction lists them and drops the hot file.
3. the old file is unlinked when no read is on it any more.
Small parts are merged the same way, and parts that hold points of deleted runs are rewritten without them, or unlinked.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from trackd_proto import limits

from trackd_daemon.errors import StoreError
from trackd_daemon.store import decode, rollups, tables
from trackd_daemon.store.catalog import Catalog
from trackd_daemon.store.series import KINDS, PART_FILES, ROLLUPS, Series

log = logging.getLogger(__name__)

SEAL_POINTS: Final = 1_500_000
"""A hot file is sealed at this size: about 66 MB to sort, what does not fit goes through the temp directory."""
QUIET_S: Final = 2.0
QUIET_POINTS: Final = 200_000
"""Without new points for QUIET_S, a hot file with at least this many points is sealed: a flood has priority over
sorting what it brought, and charts of sorted points are faster."""
WIDE_BYTES: Final = 2 * limits.KIB
"""A longer value is wide: DuckDB reads, sorts and writes 2,048 rows at a time, and those may not fit into memory."""
PART_WIDE_BYTES: Final = 8 * limits.MIB
"""Of wide values in one part. Writing it takes five times as much, reading it twice; buffers are powers of two."""
SEAL_TEXT_BYTES: Final = 7 * limits.MIB
"""A hot file is sealed at so much text (values that are not numbers), too: with the commit that goes beyond, most make
one part. Reading any of it takes twice all of it: at 12 MiB, a flood and four readers had too little memory."""
GROUP_TEXT_BYTES: Final = 4 * limits.MIB
"""In a row group of values that are not wide."""
PART_BYTES: Final = 256 * limits.MIB
MERGE_COUNT: Final = 4
"""So many parts of one size class (each eight times the one before) are merged into one."""
_SMALLEST_CLASS: Final = 4 * limits.MIB
_VECTOR_ROWS: Final = 2048
_GROUP_ROWS: Final = 122_880
_Failure = StoreError | OSError


class Compactor:
    """A background thread that is started when there is something to do."""

    def __init__(
        self,
        catalog: Catalog,
        series: Series,
        lock: threading.RLock,
        release: Callable[[], bool] = lambda: False,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        """`release`: gives space that was held back for this; False if there is none. `on_done`: after each run."""
        self._release = release
        self._on_done = on_done
        self._catalog = catalog
        self._series = series
        self._lock = lock
        self._run_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._is_asked = False
        self._wide: dict[int, int] = {}
        """Bytes of wide values by part."""
        self._watcher: threading.Thread | None = None
        self._stopped = threading.Event()
        self._last_points = 0
        self._last_change_s = 0.0

    def consider(self) -> None:
        """Called after each commit: seals a hot file that is large, or not small and left in peace."""
        if self._series.hot_text >= SEAL_TEXT_BYTES:
            self._seal_now()
        points = self._series.hot_points
        if points != self._last_points:
            self._last_points, self._last_change_s = points, time.monotonic()
        if points >= SEAL_POINTS:
            self.wake()
        elif points >= QUIET_POINTS and (self._watcher is None or not self._watcher.is_alive()):
            self._watcher = threading.Thread(target=self._wait_for_quiet, name="trackd-quiet", daemon=True)
            self._watcher.start()

    def _seal_now(self) -> None:
        """Not behind what is being compacted: with much more text the file could be neither read nor sorted."""
        try:
            self._seal()
        except (StoreError, OSError) as error:
            log.warning("the hot file could not be sealed, which will be tried again: %s", error)
        self.wake()

    def _wait_for_quiet(self) -> None:
        while (left := self._last_change_s + QUIET_S - time.monotonic()) > 0:
            if self._stopped.wait(left):
                return
        if self._series.hot_points >= QUIET_POINTS:
            self.wake()

    def wake(self) -> None:
        """Run in the background; once more if a run is under way, which may have looked before this was asked."""
        with self._lock:
            self._is_asked = True
            if self._is_stopping or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._background, name="trackd-compaction", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Wait for a run that is under way; start none any more."""
        self._is_stopping = True
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _background(self) -> None:
        while self._is_wanted():
            try:
                is_large = self._series.hot_points >= min(SEAL_POINTS, QUIET_POINTS)
                self.run(seal=is_large)
            except (StoreError, OSError) as error:
                log.warning("compaction failed and will be tried again: %s", error)
            self._on_done()

    def _is_wanted(self) -> bool:
        with self._lock:
            if self._is_asked and not self._is_stopping:
                self._is_asked = False
                return True
            self._thread = None  # here, not at the thread's end: who asks after this starts another
            return False

    def run(self, *, seal: bool) -> None:
        """Everything that is to do, now. Raises the first StoreError or OSError; what could be done stands."""
        try:
            self._run(seal=seal)
        except (StoreError, OSError):
            if not self._release():
                raise
            self._run(seal=seal)

    def _run(self, *, seal: bool) -> None:
        with self._run_lock:
            failures: list[_Failure] = []
            if seal and self._series.hot_points:
                self._try(failures, self._seal)
            for number in self._sealed():
                if not self._is_stopping:
                    self._try(failures, partial(self._rewrite, hots=[number], parts=[]))
            for group in self._due():
                if not self._is_stopping:
                    self._try(failures, partial(self._rewrite, hots=[], parts=group))
            self._series.unlink_retired()
            if failures:
                raise failures[0]

    def _try(self, failures: list[_Failure], work: Callable[[], None]) -> None:
        """One file that cannot be rewritten must not keep the others, and the space that they would free."""
        try:
            work()
        except (StoreError, OSError) as error:
            log.warning("a step of compaction failed: %s", error)
            failures.append(error)

    def _sealed(self) -> list[int]:
        h = tables.hot_files
        with self._catalog.read() as con:
            return [row.hot_no for row in con.execute(h.select().where(h.c.sealed == 1).order_by(h.c.hot_no))]

    def _seal(self) -> None:
        series, h = self._series, tables.hot_files
        with self._lock:
            old = series.active
            new = old + 1
            series.make_hot(new)
            marks = series.applied(old)
            with self._catalog.write() as con:
                con.execute(h.update().where(h.c.hot_no == old).values(sealed=1))
                con.execute(h.insert().values(hot_no=new, sealed=0))
                if marks:
                    add = insert(tables.series_applied)
                    later = sa.func.max(tables.series_applied.c.next_seq, add.excluded.next_seq)
                    con.execute(
                        add.on_conflict_do_update(index_elements=["writer_no"], set_={"next_seq": later}),
                        [{"writer_no": w, "next_seq": n} for w, n in marks.items()],
                    )
            series.activate(new)

    def _due(self) -> list[list[int]]:
        """Groups of parts to rewrite: those with points of deleted runs, and enough small ones of a size."""
        p, pr, r = tables.parts, tables.part_runs, tables.runs
        with self._catalog.read() as con:
            sizes = {row.part_no: row.bytes for row in con.execute(p.select().order_by(p.c.part_no))}
            stale = con.execute(
                sa.select(pr.c.part_no).distinct().join(r, r.c.run_no == pr.c.run_no).where(r.c.deleted == 1)
            )
            due = [[row.part_no] for row in stale]
        taken = {number for group in due for number in group}
        self._wide = {n: self._wide[n] if n in self._wide else self._wide_bytes(n) for n in sizes}
        classes: dict[int, list[int]] = {}
        for number, size in sizes.items():
            if number not in taken:
                classes.setdefault(_size_class(size), []).append(number)
        for level, numbers in sorted(classes.items()):
            if len(numbers) >= MERGE_COUNT and level >= 0:
                some = self._fitting(numbers, sizes)
                if len(some) > 1:
                    due.append(some)
        return due

    def _fitting(self, numbers: Sequence[int], sizes: Mapping[int, int]) -> list[int]:
        """As many of these parts as may become one, those with the fewest wide values first."""
        some: list[int] = []
        size = wide = 0
        for number in sorted(numbers, key=lambda n: (self._wide[n], n))[: MERGE_COUNT * 2]:
            size, wide = size + sizes[number], wide + self._wide[number]
            if size > PART_BYTES or wide > PART_WIDE_BYTES:
                break
            some.append(number)
        return some

    def _wide_bytes(self, part: int) -> int:
        """What was noted in the file; of one that was written before there were notes, all its text."""
        path = self._series.part_path(part, decode.OTHERS)
        if not path.exists():
            return 0
        noted = f"SELECT value FROM parquet_kv_metadata({_quoted(path)}) WHERE key = 'wide_bytes'"
        whole = f"SELECT sum(total_uncompressed_size) FROM parquet_metadata({_quoted(path)}) WHERE path_in_schema = 'v'"
        try:
            found = self._series.run_on_cursor(lambda c: c.execute(noted).fetchone() or c.execute(whole).fetchone())
        except StoreError as error:
            log.warning("a part cannot be read and stays as it is: %s", error)
            return PART_BYTES
        return int(found[0])

    def _rewrite(self, *, hots: Sequence[int], parts: Sequence[int]) -> None:
        """New parts (one, but for much long text) in place of these hot files and parts, without deleted runs."""
        series = self._series
        sources = self._sources(hots, parts)
        numbers, deleted = self._begin(len(sources))
        rows: dict[int, dict[int, int]] = {}
        sizes: dict[int, int] = {}
        try:
            for number, some in zip(numbers, sources, strict=True):
                rows[number] = self._written(number, some, deleted)
                sizes[number] = sum(_sync(series.part_path(number, kind)) for kind in PART_FILES)
        except (StoreError, OSError):
            for path in [series.part_path(n, kind) for n in numbers for kind in PART_FILES]:
                path.unlink(missing_ok=True)  # half a part on a full disk is in the way of whatever would free some
            raise
        _sync_directory(series.directory)
        made = {n: some for n, some in rows.items() if some}
        with self._lock:
            self._list(hots, parts, made, sizes)
            old = [(False, n) for n in hots] + [(True, n) for n in parts]
            series.replace(old, {n: frozenset(some) for n, some in made.items()})

    def _sources(self, hots: Sequence[int], parts: Sequence[int]) -> list[dict[str, list[str]]]:
        """What goes into each new part, by kind: what stands after FROM."""
        first: dict[str, list[str]] = {}
        for kind in KINDS:
            paths = [self._series.part_path(n, kind) for n in parts]
            first[kind] = [f"read_parquet({_quoted(path)})" for path in paths if path.exists()]
        text = [f"hot{n}.{decode.OTHERS} WHERE {piece}" for n in hots for piece in self._pieces(n)]
        for kind in (decode.FLOATS, decode.INTS):
            first[kind] += [f"hot{n}.{kind}" for n in hots]
        first[decode.OTHERS] += text[:1]
        return [first, *({decode.OTHERS: [piece]} for piece in text[1:])]

    def _pieces(self, hot: int) -> list[str]:
        """Conditions that cut the text of a hot file, in order of arrival, into pieces that fit a part each."""
        length = f"SELECT rowid, octet_length(v) AS size FROM hot{hot}.{decode.OTHERS}"
        wide = f"SELECT * FROM ({length}) WHERE size > {WIDE_BYTES} ORDER BY rowid"
        starts, gathered = [0], 0
        for row, size in self._series.run_on_cursor(lambda cursor: cursor.execute(wide).fetchall()):
            if gathered and gathered + size > PART_WIDE_BYTES:
                starts.append(row)
                gathered = 0
            gathered += size
        ends = [f" AND rowid < {end}" for end in starts[1:]]
        return [f"rowid >= {start}{end}" for start, end in zip(starts, [*ends, ""], strict=True)]

    def _begin(self, count: int) -> tuple[list[int], set[int]]:
        """Numbers for so many parts, and the runs that are deleted."""
        p, r = tables.parts, tables.runs
        with self._catalog.write() as con:
            made = [con.execute(p.insert().values(rows=0, bytes=0)).inserted_primary_key for _ in range(count)]
            numbers = [int(key[0]) for key in made if key is not None]
            con.execute(p.delete().where(p.c.part_no.in_(numbers)))  # only the numbers are wanted
            return numbers, {row.run_no for row in con.execute(sa.select(r.c.run_no).where(r.c.deleted == 1))}

    def _list(
        self, hots: Sequence[int], parts: Sequence[int], made: Mapping[int, dict[int, int]], sizes: Mapping[int, int]
    ) -> None:
        """In the manifest: new parts (points per run) in place of old sources."""
        p, pr, h = tables.parts, tables.part_runs, tables.hot_files
        with self._catalog.write() as con:
            con.execute(h.delete().where(h.c.hot_no.in_(list(hots))))
            con.execute(p.delete().where(p.c.part_no.in_(list(parts))))
            con.execute(pr.delete().where(pr.c.part_no.in_(list(parts))))
            for number, rows in made.items():
                con.execute(p.insert().values(part_no=number, rows=sum(rows.values()), bytes=sizes[number]))
                con.execute(pr.insert(), [{"part_no": number, "run_no": n, "rows": c} for n, c in rows.items()])

    def _written(self, number: int, sources: Mapping[str, Sequence[str]], deleted: set[int]) -> dict[int, int]:
        rows: dict[int, int] = self._series.run_on_cursor(lambda c: self._write(c, number, sources, deleted))
        return rows

    def _write(
        self,
        cursor: duckdb.DuckDBPyConnection,
        number: int,
        sources: Mapping[str, Sequence[str]],
        deleted: set[int],
    ) -> dict[int, int]:
        """Write the files of a part; points per run in it."""
        totals: dict[int, int] = {}
        numbers: list[str] = []
        for kind, some in sources.items():
            if not some:
                continue
            united = " UNION ALL ".join(f"SELECT run, key, lane, seq, step, time, v FROM {s}" for s in some)
            present = cursor.execute(f"SELECT run, count(*) FROM ({united}) GROUP BY run").fetchall()
            kept = {run: count for run, count in present if run not in deleted}
            if not kept:
                continue
            for run, count in kept.items():
                totals[run] = totals.get(run, 0) + count
            gone = sorted({run for run, _ in present} & deleted)
            where = f" WHERE run NOT IN ({', '.join(map(str, gone))})" if gone else ""
            path = _quoted(self._series.part_path(number, kind))
            wanted = f"SELECT * FROM ({united}){where}"
            more = _text_options(cursor, wanted) if kind == decode.OTHERS else f"ROW_GROUP_SIZE {_GROUP_ROWS}"
            cursor.execute(
                f"COPY ({wanted} ORDER BY run, key, lane, step, seq) TO {path}"
                f" (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, {more})"
            )
            if kind in (decode.FLOATS, decode.INTS):
                numbers.append(f"read_parquet({path})")
        if numbers:
            rollups.write(cursor, numbers, self._series.part_path(number, ROLLUPS))
        return totals


def _text_options(cursor: duckdb.DuckDBPyConnection, wanted: str) -> str:
    """Row groups that fit into memory, and a note of the bytes in wide values."""
    longest, wide = cursor.execute(
        f"SELECT max(size), ifnull(sum(size) FILTER (size > {WIDE_BYTES}), 0)"
        f" FROM (SELECT octet_length(v) AS size FROM ({wanted}))"
    ).fetchall()[0]
    rows = max(_VECTOR_ROWS, min(_GROUP_ROWS, GROUP_TEXT_BYTES // max(longest, 1)))
    return f"ROW_GROUP_SIZE {rows}, KV_METADATA {{wide_bytes: {wide}}}"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _size_class(size: int) -> int:
    """0 for the smallest parts, one more for each eightfold size; -1 for those too large to merge."""
    if size > PART_BYTES // 2:
        return -1
    level = 0
    while size > _SMALLEST_CLASS:
        size //= 8
        level += 1
    return level


def _sync(path: Path) -> int:
    """Sync a file, if it is there; its size."""
    if not path.exists():
        return 0
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__: list[Any] = ["Compactor"]

"""Compaction: from the hot file to sorted, immutable, compressed parts.

Steps, each of which a crash may follow:
1. seal: a new empty hot file is made; one catalog transaction lists it, marks the old one sealed and takes over its
   applied marks. Before it the new file is a stray, after it ingest appends there.
2. a sealed hot file is sorted into a part (files synced); one catalog transaction lists the part, drops the hot file.
3. the old file is unlinked when no read is on it any more.
Small parts are merged the same way, and parts that hold points of deleted runs are rewritten without them, or unlinked.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
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
PART_BYTES: Final = 256 * limits.MIB
MERGE_COUNT: Final = 4
"""So many parts of one size class (each eight times the one before) are merged into one."""
_SMALLEST_CLASS: Final = 4 * limits.MIB


class Compactor:
    """A background thread that is started when there is something to do."""

    def __init__(
        self,
        catalog: Catalog,
        series: Series,
        lock: threading.RLock,
        release: Callable[[], bool] = lambda: False,
    ) -> None:
        """`release`: gives space that was held back for this; False if there is none."""
        self._release = release
        self._catalog = catalog
        self._series = series
        self._lock = lock
        self._run_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._watcher: threading.Thread | None = None
        self._stopped = threading.Event()
        self._last_points = 0
        self._last_change_s = 0.0

    def consider(self) -> None:
        """Called after each commit: seals a hot file that is large, or not small and left in peace."""
        points = self._series.hot_points
        if points != self._last_points:
            self._last_points, self._last_change_s = points, time.monotonic()
        if points >= SEAL_POINTS:
            self.wake()
        elif points >= QUIET_POINTS and (self._watcher is None or not self._watcher.is_alive()):
            self._watcher = threading.Thread(target=self._wait_for_quiet, name="trackd-quiet", daemon=True)
            self._watcher.start()

    def _wait_for_quiet(self) -> None:
        while (left := self._last_change_s + QUIET_S - time.monotonic()) > 0:
            if self._stopped.wait(left):
                return
        if self._series.hot_points >= QUIET_POINTS:
            self.wake()

    def wake(self) -> None:
        """Run in the background, unless a run is under way."""
        with self._lock:
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
        try:
            is_large = self._series.hot_points >= min(SEAL_POINTS, QUIET_POINTS)
            self.run(seal=is_large)
        except (StoreError, OSError) as error:
            log.warning("compaction failed and will be tried again: %s", error)

    def run(self, *, seal: bool) -> None:
        """Everything that is to do, now. Raises StoreError, OSError; what was done until then stands."""
        try:
            self._run(seal=seal)
        except (StoreError, OSError):
            if not self._release():
                raise
            self._run(seal=seal)

    def _run(self, *, seal: bool) -> None:
        with self._run_lock:
            if seal and self._series.hot_points:
                self._seal()
            with self._catalog.read() as con:
                h = tables.hot_files
                sealed = [row.hot_no for row in con.execute(h.select().where(h.c.sealed == 1).order_by(h.c.hot_no))]
            for number in sealed:
                self._rewrite(hots=[number], parts=[])
            for group in self._due():
                if self._is_stopping:
                    return
                self._rewrite(hots=[], parts=group)
            self._series.unlink_retired()

    def _seal(self) -> None:
        series, h = self._series, tables.hot_files
        with self._lock:
            old = series.active
            new = old + 1
            series.attach_hot(new, is_active=False)
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
        classes: dict[int, list[int]] = {}
        for number, size in sizes.items():
            if number not in taken:
                classes.setdefault(_size_class(size), []).append(number)
        for level, numbers in sorted(classes.items()):
            if len(numbers) >= MERGE_COUNT and level >= 0:
                some = numbers[: MERGE_COUNT * 2]
                while sum(sizes[n] for n in some) > PART_BYTES:
                    some.pop()
                if len(some) > 1:
                    due.append(some)
        return due

    def _rewrite(self, *, hots: Sequence[int], parts: Sequence[int]) -> None:
        """One new part in place of these hot files and parts, without deleted runs."""
        series = self._series
        p, pr, r, h = tables.parts, tables.part_runs, tables.runs, tables.hot_files
        with self._catalog.write() as con:
            number = int(con.execute(p.insert().values(rows=0, bytes=0)).inserted_primary_key[0])  # type: ignore[index]
            con.execute(p.delete().where(p.c.part_no == number))  # only the number is wanted
            deleted = {row.run_no for row in con.execute(sa.select(r.c.run_no).where(r.c.deleted == 1))}
        try:
            rows = series.run_on_cursor(lambda cursor: self._write(cursor, number, hots, parts, deleted))
            size = sum(_sync(series.part_path(number, kind)) for kind in PART_FILES)
        except (StoreError, OSError):
            for kind in PART_FILES:  # half a part on a full disk is in the way of whatever would free some
                series.part_path(number, kind).unlink(missing_ok=True)
            raise
        _sync_directory(series.directory)
        with self._lock:
            with self._catalog.write() as con:
                con.execute(h.delete().where(h.c.hot_no.in_(list(hots))))
                con.execute(p.delete().where(p.c.part_no.in_(list(parts))))
                con.execute(pr.delete().where(pr.c.part_no.in_(list(parts))))
                if rows:
                    con.execute(p.insert().values(part_no=number, rows=sum(rows.values()), bytes=size))
                    con.execute(pr.insert(), [{"part_no": number, "run_no": n, "rows": c} for n, c in rows.items()])
            old = [(False, n) for n in hots] + [(True, n) for n in parts]
            series.replace(old, (number, frozenset(rows)) if rows else None)

    def _write(
        self,
        cursor: duckdb.DuckDBPyConnection,
        number: int,
        hots: Sequence[int],
        parts: Sequence[int],
        deleted: set[int],
    ) -> dict[int, int]:
        """Write the files of a part; points per run in it."""
        totals: dict[int, int] = {}
        numbers: list[str] = []
        for kind in KINDS:
            sources = [f"hot{n}.{kind}" for n in hots]
            sources += [f"read_parquet('{p}')" for n in parts if (p := self._series.part_path(n, kind)).exists()]
            if not sources:
                continue
            united = " UNION ALL ".join(f"SELECT run, key, lane, seq, step, time, v FROM {s}" for s in sources)
            present = cursor.execute(f"SELECT run, count(*) FROM ({united}) GROUP BY run").fetchall()
            kept = {run: count for run, count in present if run not in deleted}
            if not kept:
                continue
            for run, count in kept.items():
                totals[run] = totals.get(run, 0) + count
            gone = sorted({run for run, _ in present} & deleted)
            where = f" WHERE run NOT IN ({', '.join(map(str, gone))})" if gone else ""
            path = str(self._series.part_path(number, kind)).replace("'", "''")
            cursor.execute(
                f"COPY (SELECT * FROM ({united}){where} ORDER BY run, key, lane, step, seq) TO '{path}'"
                " (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE 122880)"
            )
            if kind in (decode.FLOATS, decode.INTS):
                numbers.append(f"read_parquet('{path}')")
        if numbers:
            rollups.write(cursor, numbers, self._series.part_path(number, ROLLUPS))
        return totals


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

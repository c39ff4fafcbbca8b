"""The embedded hub store: SQLite catalog and DuckDB series under one directory."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from trackd_proto import limits

from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.model import Batch, Outcome, RunChange
from trackd_daemon.ports import ChartQuery, SampledSeries
from trackd_daemon.store import charts, edits, listing, reads, scans, tables
from trackd_daemon.store.catalog import Catalog
from trackd_daemon.store.catalog_write import Touch, change_of
from trackd_daemon.store.compaction import Compactor
from trackd_daemon.store.ingest import Ingest, load_applied
from trackd_daemon.store.names import find_project, find_run
from trackd_daemon.store.series import Series
from trackd_daemon.store.space import Space

Json = dict[str, Any]
log = logging.getLogger(__name__)
DEFAULT_MEMORY_LIMIT_BYTES: Final = 96 * limits.MIB
_TOUCH_WRITE_US: Final = 5_000_000


def wall_clock_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class EmbeddedStore:
    """Implements ports.HubStore. Open with `open`; reads from any thread, ingest from one at a time."""

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        series: Series,
        clock: Callable[[], int],
        space: Space | None = None,
        on_compacted: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self._space = space or Space(directory, None)
        self._catalog = catalog
        self._series = series
        self._clock = clock
        self._lock = threading.RLock()
        """Held by whatever changes the stores: ingest, edits, the moments in which compaction switches files."""
        self._listeners: list[Callable[[Sequence[RunChange]], None]] = []
        self._beats: dict[int, int] = {}
        self._beats_written_us = 0
        self._is_closed = False
        hots = _open_files(catalog, series)
        self._ingest = Ingest(catalog, series, load_applied(catalog, series, hots))
        self.compactor = Compactor(catalog, series, self._lock, self._space.release, on_compacted)
        with catalog.read() as con:
            self._store_id = str(
                con.execute(sa.select(tables.info.c.value).where(tables.info.c.name == "store_id")).scalar_one()
            )

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        clock: Callable[[], int] = wall_clock_us,
        min_free_bytes: int | None = None,
        on_compacted: Callable[[], None] = lambda: None,
    ) -> "EmbeddedStore":
        """Open or create the store in `directory` (0700). `clock` gives microseconds since the epoch.

        `min_free_bytes`: what ingest leaves free on the disk; 0: the smaller of 1 GiB and 5 % of it; None: nothing.
        `on_compacted` is called after each compaction in the background, which frees much memory.

        Raises StoreError for a store that a newer version wrote (touching nothing) or that cannot be read.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mask = os.umask(0o077)  # DuckDB and SQLite make their side files with the process's mask
        try:
            with contextlib.ExitStack() as opened:  # what was opened before an error would lock the files for ever
                catalog = Catalog.open(directory)
                opened.callback(catalog.close)
                directory.chmod(0o700)
                series = Series(directory / "series", memory_limit_bytes)
                opened.callback(series.close)
                store = cls(directory, catalog, series, clock, Space(directory, min_free_bytes), on_compacted)
                opened.pop_all()
            return store
        finally:
            os.umask(mask)

    def close(self) -> None:
        """Finish what is under way and close the files. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.compactor.stop()
        with self._lock:
            self._write_beats()
            self._series.close()
            self._catalog.close()

    # -- IngestPort

    def resume(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """See ports.IngestPort."""
        with self._lock:
            return {w: p.committed for w, p in self._ingest.positions(writer_ids).items()}

    def ingest(self, batches: Sequence[Batch]) -> list[Outcome]:
        """See ports.IngestPort."""
        with self._lock:
            self._space.check()
            try:
                return self._ingest.commit(batches, self._clock())
            finally:
                touched, self._ingest.touched = self._ingest.touched, {}
                if touched:
                    self._notify(touched)
                self.compactor.consider()

    def touch(self, writer_ids: Sequence[bytes], now_us: int) -> None:
        """See ports.IngestPort."""
        with self._lock:
            w = tables.writers
            with self._catalog.read() as con:
                for row in con.execute(sa.select(w.c.run_no).where(w.c.writer_id.in_(list(writer_ids)))):
                    self._beats[row.run_no] = now_us  # also when the clock was set back since
            if abs(now_us - self._beats_written_us) > _TOUCH_WRITE_US:
                self._write_beats()
                self._beats_written_us = now_us

    def stops(self, writer_ids: Sequence[bytes]) -> set[bytes]:
        """See ports.IngestPort."""
        w, r = tables.writers, tables.runs
        with self._catalog.read() as con:
            rows = con.execute(
                sa.select(w.c.writer_id)
                .join(r, r.c.run_no == w.c.run_no)
                .where(w.c.writer_id.in_(list(writer_ids)), r.c.stop_requested == 1)
            )
            return {row.writer_id for row in rows}

    def links(self, writer_ids: Sequence[bytes]) -> dict[bytes, tuple[str, str]]:
        """See ports.IngestPort."""
        w, r, p = tables.writers, tables.runs, tables.projects
        with self._catalog.read() as con:
            rows = con.execute(
                sa.select(w.c.writer_id, p.c.name, r.c.run_id)
                .join(r, r.c.run_no == w.c.run_no)
                .join(p, p.c.project_no == r.c.project_no)
                .where(w.c.writer_id.in_(list(writer_ids)), r.c.deleted == 0)
            )
            return {row.writer_id: (row.name, row.run_id) for row in rows}

    # -- ReadPort

    def store_id(self) -> str:
        """Identity of this store, made when it was created."""
        return self._store_id

    def projects(self) -> list[Json]:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            return listing.projects(con, self._clock(), dict(self._beats))

    def runs(
        self, project: str, *, where: str = "", sort: str = "-created", limit: int = 100, cursor: str = ""
    ) -> Json:
        """See ports.ReadPort."""
        is_told = True
        if self._beats:
            with self._lock:
                is_told = self._write_beats()
        with self._catalog.read() as con:
            if not is_told:
                self._lend_beats(con)
            return listing.runs(con, project, where=where, sort=sort, limit=limit, cursor=cursor, now_us=self._clock())

    def run(self, project: str, run_id: str) -> Json | None:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            run_no = _run_number(con, project, run_id)
            if run_no is None:
                return None
            r, p = tables.runs, tables.projects
            row = con.execute(sa.select(r).where(r.c.run_no == run_no)).one()
            name = con.execute(sa.select(p.c.name).where(p.c.project_no == row.project_no)).scalar_one()
            return reads.run_json(con, row, name, dict(self._beats), self._clock())

    def versions(self, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """See ports.ReadPort."""
        r = tables.runs
        with self._catalog.read() as con:
            numbers = {_run_number(con, *name): name for name in runs}
            rows = con.execute(sa.select(r.c.run_no, r.c.version).where(r.c.run_no.in_([n for n in numbers if n])))
            return {numbers[row.run_no]: row.version for row in rows}

    def columns(self, project: str) -> list[Json]:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            return listing.columns(con, project)

    def keys(self, project: str, run_id: str, stream: str = "default") -> list[Json]:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            run_no = _run_number(con, project, run_id)
            return [] if run_no is None else reads.keys(con, run_no, stream)

    def chart(self, query: ChartQuery) -> list[SampledSeries]:
        """See ports.ReadPort."""
        return charts.chart(self._catalog, self._series, query)

    def scan(
        self,
        project: str,
        run_id: str,
        *,
        keys: Sequence[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        stream: str = "default",
        steps: Sequence[int] | None = None,
        attempt: int | None = None,
    ) -> Iterator[list[Json]]:
        """See ports.ReadPort."""
        return scans.scan(
            self._catalog,
            self._series,
            project,
            run_id,
            keys=keys,
            start=start,
            end=end,
            stream=stream,
            steps_wanted=steps,
            attempt=attempt,
        )

    def attempts(self, project: str, run_id: str) -> list[Json]:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            run_no = _run_number(con, project, run_id)
            beat_us = dict(self._beats).get(run_no or 0, 0)
            return [] if run_no is None else reads.attempts(con, run_no, beat_us, self._clock())

    def writers(self, project: str, run_id: str) -> list[Json]:
        """See ports.ReadPort."""
        with self._catalog.read() as con:
            run_no = _run_number(con, project, run_id)
            return [] if run_no is None else reads.writers(con, run_no)

    def stats(self) -> Json:
        """Sizes and counts of the store."""
        with self._catalog.read() as con:
            parts = con.execute(sa.select(sa.func.count(), sa.func.sum(tables.parts.c.rows))).one()
            runs = con.execute(sa.select(sa.func.count()).where(tables.runs.c.deleted == 0)).scalar_one()
        return {
            "store_bytes": _bytes_below(self.directory),
            "runs": runs,
            "parts": parts[0],
            "part_points": parts[1] or 0,
            "hot_points": self._series.hot_points,
        }

    # -- EditPort

    def edit_run(self, project: str, run_id: str, changes: Mapping[str, Any]) -> bool:
        """See ports.EditPort."""
        return self._edit(lambda con: edits.edit_run(con, project, run_id, changes, self._clock()))

    def delete_run(self, project: str, run_id: str) -> bool:
        """See ports.EditPort."""
        done = self._edit(lambda con: edits.delete_run(con, project, run_id))
        self.compactor.wake()
        return done

    def rename_project(self, project: str, name: str) -> bool:
        """See ports.EditPort."""
        return self._edit(lambda con: edits.rename_project(con, project, name))

    def delete_project(self, project: str) -> bool:
        """See ports.EditPort."""
        done = self._edit(lambda con: edits.delete_project(con, project))
        self.compactor.wake()
        return done

    def request_stop(self, project: str, run_id: str) -> bool:
        """See ports.EditPort."""
        return self._edit(lambda con: edits.request_stop(con, project, run_id))

    def _edit(self, work: Callable[[sa.Connection], Sequence[RunChange] | None]) -> bool:
        with self._lock:
            try:
                changes = self._in_catalog(work)
            except StoreFullError:
                if not self._space.release():
                    raise
                changes = self._in_catalog(work)
            self._ingest.forget()
            if changes:
                self._tell(changes)
        return changes is not None

    def _in_catalog(self, work: Callable[[sa.Connection], Sequence[RunChange] | None]) -> Sequence[RunChange] | None:
        with self._catalog.write() as con:
            return work(con)

    # -- ChangePort

    def subscribe(self, listener: Callable[[Sequence[RunChange]], None]) -> Callable[[], None]:
        """See ports.ChangePort."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    def compact(self) -> None:
        """Seal the hot file, write everything into sorted parts and drop what is deleted, now."""
        self.compactor.run(seal=True)

    # -- own

    def _write_beats(self) -> bool:
        """Whether the catalog has all heartbeats now; while it cannot write (full disk) they stay in memory. Call with
        the lock held: none comes between writing and forgetting them."""
        if self._beats:
            try:
                with self._catalog.write() as con:
                    _set_beats(con, self._beats)
            except StoreError as error:
                log.debug("heartbeats are not written yet: %s", error)
                return False
            self._beats = {}
        return True

    def _lend_beats(self, con: sa.Connection) -> None:
        """Show a reader the heartbeats that cannot be written: filters are SQL. The change stays in memory, and is
        rolled back when the reader closes."""
        with contextlib.suppress(sa.exc.OperationalError):
            _set_beats(con, dict(self._beats))

    def _notify(self, touched: Mapping[int, Touch]) -> None:
        if not self._listeners:
            return
        r, p = tables.runs, tables.projects
        with self._catalog.read() as con:
            rows = con.execute(
                sa.select(r.c.run_no, p.c.name, r.c.run_id, r.c.version)
                .join(p, p.c.project_no == r.c.project_no)
                .where(r.c.run_no.in_(list(touched)), r.c.deleted == 0)
            ).all()
        self._tell([change_of(row.name, row.run_id, row.version, touched[row.run_no]) for row in rows])

    def _tell(self, changes: Sequence[RunChange]) -> None:
        for listener in list(self._listeners):
            try:
                listener(changes)
            except Exception:  # a listener's mistake must not stop ingest
                log.exception("a listener failed")


def _bytes_below(directory: Path) -> int:
    """Of all files; ingest and compaction may take files and directories away meanwhile."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).stat().st_size
    return total


def _set_beats(con: sa.Connection, beats: Mapping[int, int]) -> None:
    r = tables.runs
    for run_no, now_us in beats.items():
        is_newer = r.c.heartbeat_us.between(now_us, now_us + reads.LOST_CONTACT_US)
        con.execute(r.update().where(r.c.run_no == run_no, ~is_newer).values(heartbeat_us=now_us))


def _run_number(con: sa.Connection, project: str, run_id: str) -> int | None:
    project_no = find_project(con, project)
    return None if project_no is None else find_run(con, project_no, run_id)


def _open_files(catalog: Catalog, series: Series) -> list[int]:
    """Open what the manifest lists, unlink what it does not; the numbers of the hot files."""
    h, parts, part_runs = tables.hot_files, tables.parts, tables.part_runs
    with catalog.write() as con:
        if con.execute(sa.select(sa.func.count()).select_from(h).where(h.c.sealed == 0)).scalar_one() == 0:
            number = con.execute(sa.select(sa.func.ifnull(sa.func.max(h.c.hot_no), 0))).scalar_one() + 1
            con.execute(h.insert().values(hot_no=number, sealed=0))
        hots = con.execute(sa.select(h.c.hot_no, h.c.sealed).order_by(h.c.hot_no)).all()
        runs: dict[int, set[int]] = {row.part_no: set() for row in con.execute(sa.select(parts.c.part_no))}
        for row in con.execute(sa.select(part_runs.c.part_no, part_runs.c.run_no)):
            runs[row.part_no].add(row.run_no)
    series.sweep({row.hot_no for row in hots}, set(runs))
    for row in hots:
        series.attach_hot(row.hot_no, is_active=not row.sealed)
    for number, some in runs.items():
        series.add_part(number, frozenset(some))
    return [row.hot_no for row in hots]

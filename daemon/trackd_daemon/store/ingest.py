"""The hub's ingest: a group commit over two stores that each remember what they have.

The catalog commits first, then the series. Whatever lies between (a crash, a full disk, an error), each store knows by
its own `next_seq` what it has, so that the next attempt gives each exactly what it lacks. A read that begins between
the two commits waits for the second: what the catalog says of a run, its points show.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence

from trackd_proto import records

from trackd_daemon.errors import StoreError
from trackd_daemon.model import Batch, Outcome
from trackd_daemon.store import admission, decode, tables
from trackd_daemon.store.admission import Piece, Plan, Position
from trackd_daemon.store.catalog import Catalog
from trackd_daemon.store.catalog_write import STREAMS, CatalogCache, CatalogTransaction, Touch, Writer
from trackd_daemon.store.columns import PointsBuilder
from trackd_daemon.store.decode import Decoded, Raw
from trackd_daemon.store.series import Series

log = logging.getLogger(__name__)


class Ingest:
    """One thread at a time."""

    def __init__(self, catalog: Catalog, series: Series, applied: dict[int, int]) -> None:
        self._catalog = catalog
        self._series = series
        self._cache = CatalogCache()
        self._applied = applied
        """The series' next seq by writer number."""
        self.touched: dict[int, Touch] = {}
        """What the last commits changed, by run; the caller empties it."""
        self._is_unsure = False

    def position(self, writer: Writer | None) -> Position:
        """Next seqs of a writer in both stores."""
        if writer is None:
            return Position()
        return Position(writer.next_seq, self._applied.get(writer.writer_no, admission.FIRST_SEQ))

    def positions(self, writer_ids: Sequence[bytes]) -> dict[bytes, Position]:
        """Next seqs of these writers in both stores."""
        self._make_sure()
        with self._catalog.read() as con:
            known = CatalogTransaction(con, self._cache, 0)
            return {w: self.position(known.writer(w)) for w in writer_ids}

    def forget(self) -> None:
        """Drop cached numbers (after an edit that moves or deletes)."""
        self._cache.clear()

    def commit(self, batches: Sequence[Batch], now_us: int) -> list[Outcome]:
        """All batches in one transaction; if that fails, writer by writer, so that none is held up by another."""
        try:
            return self._commit(batches, now_us)
        except Exception as error:
            self._cache.clear()
            groups = admission.by_writer(batches)
            if len(groups) == 1 and isinstance(error, StoreError):
                raise
            log.warning("a group commit of %d writers failed, taking them one by one: %s", len(groups), error)
        return self._commit_each(groups, now_us)

    def _commit_each(self, groups: Sequence[Sequence[Batch]], now_us: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        failure: StoreError | None = None
        for group in groups:
            try:
                outcomes.extend(self._commit_one(group, now_us))
            except StoreError as error:
                self._cache.clear()
                failure = error
        if failure is not None:
            raise failure
        return outcomes

    def _commit_one(self, group: Sequence[Batch], now_us: int) -> list[Outcome]:
        """One writer. What fails for any reason but the stores' own is kept raw: it may never stop its writer."""
        outcomes: list[Outcome] = []
        for batch in group:
            try:
                outcomes = self._commit([batch], now_us)
            except StoreError:
                raise
            except Exception:
                self._cache.clear()
                log.exception(
                    "records %d+%d of writer %s are kept raw", batch.first_seq, batch.count, batch.writer_id.hex()
                )
                outcomes = self._commit([batch], now_us, is_raw=True)
        return outcomes

    def _commit(self, batches: Sequence[Batch], now_us: int, *, is_raw: bool = False) -> list[Outcome]:
        ids = list(dict.fromkeys(b.writer_id for b in batches))
        positions = self.positions(ids)
        plans = admission.plan(positions, batches)
        builder = PointsBuilder()
        applied: dict[int, int] = {}
        if any(p.takes for p in plans):
            with contextlib.ExitStack() as until_both_have_it:
                with self._catalog.write() as con:
                    transaction = CatalogTransaction(con, self._cache, now_us)
                    for plan in plans:
                        self._apply(transaction, plan, builder, applied, is_raw=is_raw)
                    touched = transaction.finish()
                    if applied:
                        until_both_have_it.enter_context(self._series.behind())
                self.touched |= touched
                if applied:
                    self._append(builder, applied)
        return [Outcome(p.writer_id, p.next_seq, p.is_gap) for p in plans]

    def _append(self, builder: PointsBuilder, applied: dict[int, int]) -> None:
        try:
            self._series.append(builder.columns(), applied)
        except StoreError as failure:
            self._is_unsure = True
            self._series.repair(failure)
            raise
        self._applied.update(applied)

    def _make_sure(self) -> None:
        """After a failure of the series only its file can tell what it has: the failed commit may stand after all.

        That file may have been sealed since. Then its marks are in the manifest.
        """
        if not self._is_unsure:
            return
        try:
            marks = self._marks()
        except StoreError as failure:
            if not self._series.repair(failure):
                raise
            marks = self._marks()
        merge_applied(self._applied, marks)
        self._is_unsure = False

    def _marks(self) -> dict[int, int]:
        return load_applied(self._catalog, self._series, [self._series.active])

    def _apply(
        self,
        transaction: CatalogTransaction,
        plan: Plan,
        builder: PointsBuilder,
        applied: dict[int, int],
        *,
        is_raw: bool,
    ) -> None:
        for take in plan.takes:
            for piece in admission.pieces(take, plan.position):
                writer = transaction.writer(plan.writer_id)
                if piece.batch.loss_reason:
                    writer = writer or transaction.begin_writer(
                        plan.writer_id, piece.batch.project, piece.batch.run_id, None
                    )
                    if piece.for_catalog:
                        transaction.lose(
                            writer, piece.first_seq, piece.next_seq - piece.first_seq, piece.batch.loss_reason
                        )
                else:
                    decoded = _decode(piece, writer.crc32 if writer else 0, is_raw=is_raw)
                    if writer is None:
                        start = next((f for f in decoded.facts if f.kind == records.START), None)
                        writer = transaction.begin_writer(
                            plan.writer_id, piece.batch.project, piece.batch.run_id, start
                        )
                    if piece.for_catalog:
                        transaction.apply(writer, decoded)
                    if piece.for_series and not writer.is_deleted:
                        for block in decoded.blocks:
                            numbers = transaction.key_numbers(STREAMS[block.kind], block.keys)
                            builder.add(writer.run_no, writer.writer_no, block, numbers)
                if piece.for_series:
                    applied[writer.writer_no] = piece.next_seq


def _decode(piece: Piece, crc32: int, *, is_raw: bool) -> Decoded:
    batch, count = piece.batch, piece.next_seq - piece.first_seq
    data = batch.data
    if count != batch.count:
        data = decode.part_of(data, piece.first_seq - batch.first_seq, piece.next_seq - batch.first_seq)
    if is_raw:
        result = Decoded(piece.first_seq, count, crc32=crc32)
        result.raws.append(Raw(piece.first_seq, "undecodable: the stores could not take it", data, count))
        return result
    return decode.decode(data, piece.first_seq, count, crc32=crc32)


def load_applied(catalog: Catalog, series: Series, hots: Sequence[int]) -> dict[int, int]:
    """The series' next seq by writer number: from the sealed past in the manifest and the hot files' own marks."""
    table = tables.series_applied
    with catalog.read() as con:
        applied = {row.writer_no: row.next_seq for row in con.execute(table.select())}
    for number in hots:
        merge_applied(applied, series.applied(number))
    return applied


def merge_applied(target: dict[int, int], other: Mapping[int, int]) -> None:
    """Keep the greater of each."""
    for writer_no, next_seq in other.items():
        target[writer_no] = max(target.get(writer_no, 0), next_seq)

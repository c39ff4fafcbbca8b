"""A hub with two stores that commit one after the other, by the real rules of admission."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trackd_daemon.ingest.trimming import raw_data
from trackd_daemon.model import Batch
from trackd_daemon.store import admission
from trackd_daemon.upload.hop import Answer
from trackd_proto import batch as framing
from trackd_proto.compress import Decompressor
from trackd_proto.v1 import ingest_pb2


class HubCrash(BaseException):
    """The hub died here."""


@dataclass
class Store:
    """One store: its own next seq per writer, and what it holds."""

    next_seq: dict[bytes, int] = field(default_factory=dict)
    records: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    losses: dict[bytes, dict[int, str]] = field(default_factory=dict)
    touched: set[bytes] = field(default_factory=set)
    """Writers of whom something was stored since somebody looked."""

    def apply(self, pieces: Iterable[admission.Piece], choose: str) -> None:
        """One transaction."""
        for piece in pieces:
            if not getattr(piece, choose):
                continue
            batch = piece.batch
            self.touched.add(batch.writer_id)
            if batch.loss_reason:
                lost = self.losses.setdefault(batch.writer_id, {})
                for seq in range(piece.first_seq, piece.next_seq):
                    lost[seq] = batch.loss_reason
            else:
                kept = self.records.setdefault(batch.writer_id, {})
                for seq, record in enumerate(framing.split(batch.data), batch.first_seq):
                    if piece.first_seq <= seq < piece.next_seq:
                        assert seq not in kept, f"I3: seq {seq} is stored twice"
                        kept[seq] = bytes(record)
            self.advance(batch.writer_id, piece.next_seq, bool(batch.loss_reason))

    def advance(self, writer_id: bytes, next_seq: int, is_loss: bool) -> None:
        """Everything below is in this store."""
        self.next_seq[writer_id] = next_seq


class SimHub:
    """Both stores survive a crash of the hub; nothing else does."""

    def __init__(self) -> None:
        self.catalog = Store()
        self.series = Store()
        self._known: dict[bytes, int] = {}
        self._backup: tuple[Store, Store] | None = None
        self.crash_after = ""
        """"catalog" or "series": die after that store's next commit."""
        self._decompressor = Decompressor()

    def position(self, writer_id: bytes) -> admission.Position:
        """What both stores expect next."""
        return admission.Position(self.catalog.next_seq.get(writer_id, 1), self.series.next_seq.get(writer_id, 1))

    def expected(self, writer_ids: Iterable[bytes]) -> dict[bytes, int]:
        """The answer to Resume."""
        return {w: self.position(w).committed for w in writer_ids}

    def commit(self, batches: Sequence[ingest_pb2.Batch]) -> Answer:
        """Both stores, one after the other, then the answer. Raises HubCrash."""
        opened = [self._opened(batch) for batch in batches]
        plans = admission.plan({b.writer_id: self.position(b.writer_id) for b in opened}, opened)
        pieces = [piece for plan in plans for take in plan.takes for piece in admission.pieces(take, plan.position)]
        if pieces:
            self.catalog.apply(pieces, "for_catalog")
            self._maybe_crash("catalog")
            self.series.apply(pieces, "for_series")
            self._maybe_crash("series")
        answer = Answer({plan.writer_id: plan.next_seq - 1 for plan in plans})
        answer.gaps = {plan.writer_id: plan.next_seq for plan in plans if plan.is_gap}
        return answer

    def committed(self, writer_id: bytes) -> int:
        """The highest seq of which it was ever true that everything up to it is in both stores."""
        now = min(self.catalog.next_seq.get(writer_id, 1), self.series.next_seq.get(writer_id, 1)) - 1
        known = self._known[writer_id] = max(self._known.get(writer_id, 0), now)
        return known

    def back_up(self) -> None:
        """Both stores, at one moment."""
        self._backup = copy.deepcopy((self.catalog, self.series))

    def restore(self) -> bool:
        """Go back to the backup; False if there is none."""
        if self._backup is None:
            return False
        for writer_id in self.catalog.next_seq:
            self.committed(writer_id)
        self.catalog, self.series = copy.deepcopy(self._backup)
        self.catalog.touched |= self.catalog.next_seq.keys()
        self.series.touched |= self.series.next_seq.keys()
        return True

    def _maybe_crash(self, store: str) -> None:
        if self.crash_after == store:
            self.crash_after = ""
            raise HubCrash(store)

    def _opened(self, batch: ingest_pb2.Batch) -> Batch:
        data = b"" if batch.loss_reason else raw_data(batch, self._decompressor)
        return Batch(
            batch.writer_id, batch.project, batch.run_id, batch.first_seq, batch.count, data, batch.loss_reason
        )

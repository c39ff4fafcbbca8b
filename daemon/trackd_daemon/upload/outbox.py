"""What one request of a route consists of: batches of the log, what is missing of them, what goes past a full log.

Between the log, which is read elsewhere, and the next hop, which is talked to elsewhere. No I/O.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.ingest.marks import Ledger, Marks
from trackd_daemon.upload.delivery import Delivery, Hole
from trackd_daemon.upload.hop import Answer
from trackd_daemon.upload.hunt import Hunt

_PASSING_BYTES = 2 * MIB
"""Of one request that goes past a full log, where batches are not compressed: far below what a message may weigh."""
_logger = logging.getLogger("trackd")


class Outbox:
    """Composes the requests of one route and takes the answers."""

    def __init__(self, name: str, ledger: Ledger, overflow: Callable[[], Sequence[ingest_pb2.Batch]] = tuple) -> None:
        """`overflow`: what follows the log and cannot be written to it, because the disk is full; usually nothing."""
        self.name = name
        self.must_rewind = False
        """The log must be read again from its oldest record."""
        self._ledger = ledger
        self._overflow = overflow
        self._delivery = Delivery()
        self._hunt = Hunt()
        self.has_more_passing = False
        """What goes past a full log was more than the last request takes."""
        self._held: list[ingest_pb2.Batch] = []
        """Read and admitted, but kept for the next request."""

    def waiting(self) -> list[bytes]:
        """The writers to ask the next hop about: all of this route.

        Those too of which it has said that it has everything: a hub that was restored from a backup has it no more.
        """
        return [w for w, m in self._ledger.writers.items() if m.route == self.name and m.accepted]

    def connected(self, expected: Mapping[bytes, int]) -> dict[bytes, int]:
        """A connection begins; what the next hop has committed that the ledger did not know."""
        self._delivery.connected(dict(expected))
        self._hunt.connected()
        self._held = []
        self.has_more_passing = False
        self.must_rewind = True
        return {w: seq - 1 for w, seq in expected.items() if seq - 1 > self._ledger.marks(w).committed}

    def has_room(self) -> bool:
        """Another request may go out."""
        return self._delivery.has_room() and not (self._hunt.limit and self._delivery.in_flight)

    def is_holding(self) -> bool:
        """What was read last makes another request: compose() again before more is read."""
        return bool(self._held)

    def owed(self) -> dict[bytes, int]:
        """What the log should hold now, up to its durable end, by writer."""
        return {
            w: m.durable
            for w, m in self._ledger.writers.items()
            if m.route == self.name and self._delivery.committed_seq(w, m.committed) < m.durable
        }

    def compose(
        self, batches: Sequence[ingest_pb2.Batch], owed: Mapping[bytes, int], *, at_end: bool
    ) -> list[ingest_pb2.Batch]:
        """The next request, counted as sent; may be empty.

        `at_end`: the log was read to its durable end, which should hold what is `owed`.
        """
        outgoing: list[ingest_pb2.Batch] = []
        for batch in batches:
            default = self._ledger.marks(batch.writer_id).committed + 1
            expected = self._delivery.next_seq(batch.writer_id, default)
            is_wanted, hole = self._delivery.admit(batch.writer_id, batch.first_seq, batch.count, default)
            if hole is not None:
                outgoing.append(self._loss(batch.writer_id, hole))
            if is_wanted:
                outgoing.append(self._hunt.fresh(batch, expected))
        if at_end:
            outgoing += self._missing_tails(owed)
            outgoing += self._passed_through()
        outgoing, self._held = self._hunt.cut([*self._held, *self._hunt.without_parked(outgoing)])
        if outgoing:
            self._hunt.sent(outgoing)
            tops = {batch.writer_id: batch.first_seq + batch.count - 1 for batch in outgoing}
            self._delivery.sent(tops, sum(len(batch.data) for batch in outgoing))
        return outgoing

    def take(self, answer: Answer) -> dict[bytes, int]:
        """An answer came; what it says is committed and was not known to be."""
        news = {w: seq for w, seq in answer.committed.items() if self._delivery.committed(w, seq)}
        for writer_id, expected in answer.gaps.items():
            if self._delivery.gap(writer_id, expected):
                self.must_rewind = True
        if self._delivery.in_flight == 0:
            self._hunt.taken()
        return news

    def rejected(self) -> ingest_pb2.Batch | None:
        """The next hop rejected something: the batch of the record that it was, once it is known; it is declared lost
        from now on. Raises HopAtFaultError.
        """
        return self._hunt.rejected()

    def pardon(self, batch: ingest_pb2.Batch) -> bool:
        """Not this record was at fault but the next hop: it will be sent. True if it was to be declared lost."""
        return self._hunt.pardon(batch.writer_id, batch.first_seq)

    def _passed_through(self) -> list[ingest_pb2.Batch]:
        """On a full disk: what follows the log, straight from memory. What the hub commits is safe without our log."""
        passed: list[ingest_pb2.Batch] = []
        size, self.has_more_passing = 0, False
        for batch in self._overflow():
            if size >= _PASSING_BYTES:
                self.has_more_passing = True
                break
            default = self._ledger.marks(batch.writer_id).committed + 1
            # Records in between are in the log and not durable yet: no hole, only too early.
            if batch.first_seq <= self._delivery.next_seq(batch.writer_id, default):
                is_wanted, _ = self._delivery.admit(batch.writer_id, batch.first_seq, batch.count, default)
                passed += [batch] if is_wanted else []
                size += batch.ByteSize() if is_wanted else 0
        return passed

    def _missing_tails(self, durable: Mapping[bytes, int]) -> list[ingest_pb2.Batch]:
        """Losses at the end of a writer's stream: the log was read to its end and did not hold them."""
        losses = []
        for writer_id, seq in durable.items():
            hole = self._delivery.missing_tail(writer_id, seq, self._ledger.marks(writer_id).committed + 1)
            if hole is not None:
                losses.append(self._loss(writer_id, hole))
        return losses

    def _loss(self, writer_id: bytes, hole: Hole) -> ingest_pb2.Batch:
        marks: Marks = self._ledger.marks(writer_id)
        # What was committed once and is asked for again was lost by the hub, not by this log.
        reason = "restored" if hole.first_seq <= marks.committed else "damaged"
        self._ledger.lost_records += hole.records
        _logger.error(
            "route %s: %d records of writer %s are lost (%s)", self.name, hole.records, writer_id.hex(), reason
        )
        return ingest_pb2.Batch(
            writer_id=writer_id,
            first_seq=hole.first_seq,
            count=hole.records,
            loss_reason=reason,
            route=self.name,
            project=marks.project,
            run_id=marks.run_id,
        )

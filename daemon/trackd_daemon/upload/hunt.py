"""Which record is it that the next hop rejects? Requests are halved until it stands alone. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from trackd_proto.v1 import ingest_pb2

from trackd_daemon.ingest.trimming import part

FIRST_RECORDS: Final = 1024
"""Of the first request after a rejection."""
MOST_IN_A_ROW: Final = 1000
"""So many records rejected and none taken between them: the next hop is at fault, not the records."""


class HopAtFaultError(Exception):
    """It rejects what nobody can object to; nothing of what was sent is to blame."""


class Hunt:
    """One request at a time, of at most `limit` records, until everything is taken again."""

    def __init__(self) -> None:
        self.limit = 0
        """Records in the next request; 0: there is no hunt."""
        self.parked: set[tuple[bytes, int]] = set()
        """(writer, seq) of records that are declared lost instead of being sent."""
        self._request: list[ingest_pb2.Batch] = []
        self._in_a_row = 0

    def connected(self) -> None:
        """A new connection: nothing is under way."""
        self._request = []

    def sent(self, request: Sequence[ingest_pb2.Batch]) -> None:
        """This goes out."""
        self._request = list(request) if self.limit else []

    def rejected(self) -> ingest_pb2.Batch | None:
        """What was sent last was rejected. The batch of the one record that did it, once it is found: park it.

        Raises HopAtFaultError: keep everything, as if it did not want us.
        """
        request, self._request = self._request, []
        size = sum(_weight(batch) for batch in request)
        if self.limit == 0:
            self.limit = FIRST_RECORDS
            return None
        if size > 1:
            self.limit = size // 2
            return None
        if not request or request[0].loss_reason or self._in_a_row >= MOST_IN_A_ROW:
            raise HopAtFaultError
        self._in_a_row += 1
        self.parked.add((request[0].writer_id, request[0].first_seq))
        return request[0]

    def pardon(self, writer_id: bytes, seq: int) -> bool:
        """The hop turned out to be at fault: this record is to be sent again. True if it was parked."""
        if (writer_id, seq) not in self.parked:
            return False
        self.parked.discard((writer_id, seq))
        return True

    def taken(self) -> None:
        """All that was under way is committed: what follows may be larger."""
        request, self._request = self._request, []
        if not request:
            return
        if any(not batch.loss_reason for batch in request):
            self._in_a_row = 0
        self.limit = 0 if self.limit >= FIRST_RECORDS else 2 * self.limit

    def fresh(self, batch: ingest_pb2.Batch, expected: int) -> ingest_pb2.Batch:
        """During a hunt without what the next hop has: it must not be searched again."""
        if not self.limit or batch.first_seq >= expected:
            return batch
        return part(batch, expected, batch.first_seq + batch.count)

    def without_parked(self, batches: Iterable[ingest_pb2.Batch]) -> list[ingest_pb2.Batch]:
        """The same seqs, with the declaration of a loss in the place of each parked record."""
        kept: list[ingest_pb2.Batch] = []
        for batch in batches:
            first, after = batch.first_seq, batch.first_seq + batch.count
            hits = sorted(
                seq for writer_id, seq in self.parked if writer_id == batch.writer_id and first <= seq < after
            )
            if not hits or batch.loss_reason:
                kept.append(batch)
                continue
            for seq in hits:
                kept += [part(batch, first, seq)] if seq > first else []
                kept.append(_declared(batch, seq))
                first = seq + 1
            kept += [part(batch, first, after)] if after > first else []
        return kept

    def cut(self, batches: Sequence[ingest_pb2.Batch]) -> tuple[list[ingest_pb2.Batch], list[ingest_pb2.Batch]]:
        """(the next request, what is left of `batches`)"""
        if not self.limit:
            return list(batches), []
        request: list[ingest_pb2.Batch] = []
        room = self.limit
        for index, batch in enumerate(batches):
            if room == 0:
                return request, list(batches[index:])
            if _weight(batch) > room:
                border, after = batch.first_seq + room, batch.first_seq + batch.count
                request.append(part(batch, batch.first_seq, border))
                return request, [part(batch, border, after), *batches[index + 1 :]]
            request.append(batch)
            room -= _weight(batch)
        return request, []


def _weight(batch: ingest_pb2.Batch) -> int:
    return 1 if batch.loss_reason else batch.count


def _declared(batch: ingest_pb2.Batch, seq: int) -> ingest_pb2.Batch:
    return ingest_pb2.Batch(
        writer_id=batch.writer_id, first_seq=seq, count=1, loss_reason="rejected",
        route=batch.route, project=batch.project, run_id=batch.run_id,
    )  # fmt: skip

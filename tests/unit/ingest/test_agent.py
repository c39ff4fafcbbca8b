"""What an agent makes of a request of several batches."""

import pytest
from trackd_daemon.ingest import access, agent, marks
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_proto.batch import BatchError
from trackd_proto.compress import CompressionError
from trackd_proto.v1 import ingest_pb2

A, B = b"a" * 16, b"b" * 16


class _Log:
    def __init__(self) -> None:
        self.held: list[tuple[bytes, int]] = []

    def append(self, batches: list[ingest_pb2.Batch]) -> None:
        self.held += [(batch.writer_id, batch.first_seq) for batch in batches]


def _batch(writer: bytes, first: int, count: int = 1, **fields: object) -> ingest_pb2.Batch:
    return ingest_pb2.Batch(**{"writer_id": writer, "first_seq": first, "count": count, "data": b"x" * count} | fields)


_DAMAGED = {"codec": ingest_pb2.CODEC_ZSTD, "raw_bytes": 20, "data": b"no zstd frame"}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (_batch(B, 0), marks.InvalidBatchError),
        (_batch(A, 2, 20, **_DAMAGED), CompressionError),
        (_batch(A, 2, 20), BatchError),
    ],
)
def test_what_came_before_a_batch_that_makes_no_sense_gets_into_the_log(
    bad: ingest_pb2.Batch, error: type[Exception]
) -> None:
    """It counts as accepted: sent again it is a duplicate, and the sender may free it once it is called durable."""
    log, ledger = _Log(), marks.Ledger()
    ingest = agent.AgentIngest(access.Greeter(b"c" * 32, 1, ingest_pb2.ACK_DURABLE), ledger, log, Sessions())
    good = [_batch(A, 1), _batch(A, 2), _batch(B, 1)]
    with pytest.raises(error):
        ingest._take(ingest_pb2.PushRequest(batches=[*good, bad, _batch(B, 2)]), Session())
    assert log.held == [(A, 1), (A, 2), (B, 1)]
    assert [ledger.marks(w).accepted for w in (A, B)] == [2, 1]
    ingest._take(ingest_pb2.PushRequest(batches=[*good, _batch(B, 2)]), Session())
    assert log.held == [(A, 1), (A, 2), (B, 1), (B, 2)], "the rest is taken when it comes again"

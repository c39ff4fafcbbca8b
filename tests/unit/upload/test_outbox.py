"""What one request of a route consists of."""

from trackd_daemon.ingest.marks import Ledger
from trackd_daemon.upload.outbox import Outbox
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

WRITER = bytes(16)


def test_what_goes_past_a_full_log_goes_in_requests_that_a_hub_takes() -> None:
    """All that waits at once was more than a message may weigh: the hub refused it, again and again."""
    data = bytes(MIB // 2)
    waiting = [ingest_pb2.Batch(writer_id=WRITER, first_seq=1 + n, count=1, data=data) for n in range(30)]
    ledger = Ledger()
    ledger.accept(WRITER, 30, ("r", "p", "run"))
    outbox = Outbox("r", ledger, lambda: waiting)
    outbox.connected({WRITER: 1})
    sent: list[int] = []
    while not sent or outbox.has_more_passing:
        request = outbox.compose((), {}, at_end=True)
        assert sum(batch.ByteSize() for batch in request) < 4 * MIB
        sent += [batch.first_seq for batch in request]
    assert sent == list(range(1, 31))

"""What an agent passes to the hub past a log that takes nothing."""

import pytest
from trackd_daemon.ingest import access, agent, marks
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_proto.v1 import ingest_pb2

A, B = b"a" * 16, b"b" * 16


class _Log:
    def append(self, batches: object) -> None:
        """Never gets to it."""


def _batch(writer: bytes, first: int, route: str = "embedded") -> ingest_pb2.Batch:
    return ingest_pb2.Batch(writer_id=writer, first_seq=first, count=1, data=b"x", route=route)


@pytest.fixture
def ingest() -> agent.AgentIngest:
    greeter = access.Greeter(b"c" * 32, 1, ingest_pb2.ACK_DURABLE)
    made = agent.AgentIngest(greeter, marks.Ledger(), _Log(), Sessions())
    made._take(ingest_pb2.PushRequest(batches=[_batch(A, 1), _batch(A, 2), _batch(B, 1, "other")]), Session())
    return made


def test_a_log_that_works_is_passed_by_nothing(ingest: agent.AgentIngest) -> None:
    assert ingest.overflow("embedded") == []
    assert ingest.overflowing() == set()


def test_past_a_full_log_goes_what_it_lost_in_a_failed_sync_and_then_what_waits(ingest: agent.AgentIngest) -> None:
    ingest._ledger.advance({A: 1}, {}, {})
    ingest.taken(1)
    ingest.log_takes(nothing=True, stuck=[_batch(A, 1)])
    assert [(b.writer_id, b.first_seq) for b in ingest.overflow("embedded")] == [(A, 1), (A, 2)]
    assert [(b.writer_id, b.first_seq) for b in ingest.overflow("other")] == [(B, 1)]
    assert ingest.overflowing() == {"embedded", "other"}

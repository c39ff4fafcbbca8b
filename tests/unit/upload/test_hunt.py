"""A record that the next hop rejects is found by halving; what the hop rejects for reasons of its own is kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trackd_daemon.upload.hunt import MOST_IN_A_ROW, HopAtFaultError, Hunt
from trackd_proto import batch as batch_format
from trackd_proto.v1 import ingest_pb2

W = b"w" * 16


def batch_of(first: int, last: int) -> ingest_pb2.Batch:
    data = batch_format.join([b"%d" % seq for seq in range(first, last + 1)])
    return ingest_pb2.Batch(writer_id=W, first_seq=first, count=last - first + 1, raw_bytes=len(data), data=data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 120), st.sets(st.integers(1, 120), max_size=4), st.integers(1, 60))
def test_exactly_the_poison_is_parked_and_the_rest_arrives_in_order(last: int, poison: set[int], size: int) -> None:
    hunt, taken, lost, requests = Hunt(), [], [], 0
    poison &= set(range(1, last + 1))
    while len(taken) + len(lost) < last:
        hunt.connected()
        after = len(taken) + len(lost) + 1
        log = [batch_of(first, min(first + size - 1, last)) for first in range(1, last + 1, size)]
        fresh = [hunt.fresh(one, after) for one in log if one.first_seq + one.count > after]
        held = hunt.without_parked(fresh)
        while held:
            requests += 1
            assert requests < 40 + 20 * len(poison) + last, "it comes to an end"
            request, held = hunt.cut(held)
            hunt.sent(request)
            seqs = [
                (seq, one.loss_reason) for one in request for seq in range(one.first_seq, one.first_seq + one.count)
            ]
            if any(seq in poison and not reason for seq, reason in seqs):
                guilty = hunt.rejected()
                if guilty is not None:
                    assert guilty.first_seq in poison
                    assert [bytes(r) for r in batch_format.split(guilty.data)] == [b"%d" % guilty.first_seq]
                break
            hunt.taken()
            new = [(seq, reason) for seq, reason in seqs if seq > len(taken) + len(lost)]
            taken += [seq for seq, reason in new if not reason]
            lost += [seq for seq, reason in new if reason]
    assert set(lost) == poison
    assert taken == [seq for seq in range(1, last + 1) if seq not in poison]


def test_a_hop_that_rejects_the_declaration_too_is_at_fault() -> None:
    hunt = Hunt()
    assert hunt.rejected() is None
    hunt.sent([batch_of(1, 1)])
    assert hunt.rejected() is not None
    hunt.sent(hunt.without_parked([batch_of(1, 1)]))
    with pytest.raises(HopAtFaultError):
        hunt.rejected()
    assert hunt.pardon(W, 1)
    assert hunt.without_parked([batch_of(1, 1)]) == [batch_of(1, 1)]


def test_not_everything_can_be_poison() -> None:
    hunt = Hunt()
    hunt.rejected()
    with pytest.raises(HopAtFaultError):
        for seq in range(1, MOST_IN_A_ROW + 2):
            hunt.sent([batch_of(seq, seq)])
            hunt.rejected()
    assert len(hunt.parked) == MOST_IN_A_ROW

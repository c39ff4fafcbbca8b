"""Duplicate, overlap, gap, next: decided per writer from numbers alone."""

import pytest
from trackd_daemon.model import Batch
from trackd_daemon.store.admission import Position, plan

A, B = b"a" * 16, b"b" * 16


def batch(first: int, count: int, writer: bytes = A, loss: str = "") -> Batch:
    return Batch(writer, "p", "r", first, count, b"", loss)


@pytest.mark.parametrize(
    ("catalog", "series", "offered", "taken", "following", "is_gap"),
    [
        (1, 1, [(1, 3)], [(1, 4)], 4, False),
        (4, 4, [(1, 3)], [], 4, False),
        (3, 3, [(1, 5)], [(3, 6)], 6, False),
        (3, 3, [(5, 1)], [], 3, True),
        (3, 3, [(5, 1), (3, 2), (5, 2)], [(3, 5), (5, 7)], 7, True),
        (1, 1, [(1, 2), (3, 2), (1, 4), (4, 3)], [(1, 3), (3, 5), (5, 7)], 7, False),
        (9, 4, [(2, 6)], [(4, 8)], 8, False),
        (4, 9, [(2, 20)], [(4, 22)], 22, False),
    ],
)
def test_what_is_taken(
    catalog: int,
    series: int,
    offered: list[tuple[int, int]],
    taken: list[tuple[int, int]],
    following: int,
    is_gap: bool,
) -> None:
    (entry,) = plan({A: Position(catalog, series)}, [batch(*each) for each in offered])
    assert [(t.first_seq, t.next_seq) for t in entry.takes] == taken
    assert (entry.next_seq, entry.is_gap) == (following, is_gap)


def test_a_loss_follows_the_same_rule_and_lets_what_is_behind_it_in() -> None:
    (entry,) = plan({}, [batch(1, 2), batch(3, 10, loss="full"), batch(13, 1)])
    assert entry.next_seq == 14
    assert [t.batch.loss_reason for t in entry.takes] == ["", "full", ""]


def test_writers_do_not_touch_each_other() -> None:
    first, second = plan({B: Position(5, 5)}, [batch(7, 1), batch(5, 1, B), batch(1, 1)])
    assert (first.writer_id, first.is_gap, first.next_seq) == (A, True, 2)
    assert (second.writer_id, second.is_gap, second.next_seq) == (B, False, 6)

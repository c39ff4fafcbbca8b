"""Displayed steps follow from attempts, not from arrival."""

import itertools

from trackd_daemon.store.steps import Lane, lane_number, resolve
from trackd_proto.records import ROW, ROW_ORDINAL, SYSTEM


def lane(writer: int, kind: int, attempt: int, top: int) -> Lane:
    return Lane(lane_number(writer, kind), (attempt, f"a{attempt}"), attempt, bytes([writer]) * 16, 1, 0, top, 0, 0)


LANES = [
    lane(1, ROW_ORDINAL, 10, 99),
    lane(2, ROW_ORDINAL, 10, 49),
    lane(2, ROW, 10, 120),
    lane(3, ROW_ORDINAL, 20, 9),
    lane(4, SYSTEM, 20, 10**15),
    lane(5, ROW, 30, 3),
    lane(6, ROW_ORDINAL, 40, 0),
]


def test_an_attempt_begins_behind_all_earlier_ones() -> None:
    lanes = resolve(LANES)
    assert lanes.offsets == {
        lane_number(1, ROW_ORDINAL): 0,
        lane_number(2, ROW_ORDINAL): 0,
        lane_number(2, ROW): 0,
        lane_number(3, ROW_ORDINAL): 121,
        lane_number(4, SYSTEM): 0,
        lane_number(5, ROW): 0,
        lane_number(6, ROW_ORDINAL): 131,
    }
    assert lanes.last_step == 131


def test_the_order_in_which_lanes_come_does_not_matter() -> None:
    expected = resolve(LANES).offsets
    for order in itertools.permutations(LANES[:5]):
        assert resolve([*LANES[5:], *order]).offsets == expected


def test_no_rows_no_step() -> None:
    assert resolve([]).last_step is None
    assert resolve([lane(1, SYSTEM, 1, 5)]).last_step is None

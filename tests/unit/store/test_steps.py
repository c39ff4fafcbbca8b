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
        lane_number(6, ROW_ORDINAL): 4,  # attempt 30 began again at step 0 and ended at 3
    }
    assert lanes.last_step == 4


def test_the_later_attempt_wins_from_its_first_step() -> None:
    old = lane(1, ROW, 10, 99)
    again = Lane(lane_number(2, ROW), (20, "b"), 20, bytes(16), 1, 40, 59, 25, 29)
    last = Lane(lane_number(3, ROW_ORDINAL), (30, "c"), 30, bytes(16), 1, 0, 9, 35, 39)
    machine = lane(4, SYSTEM, 10, 10**15)
    lanes = resolve([last, machine, again, old])
    assert lanes.cuts == {old.lane_no: 40}
    assert [lanes.shown(each.lane_no) for each in (old, again, last)] == [(0, 39), (40, 59), (60, 69)]
    assert lanes.last_step == 69 and lanes.offsets[last.lane_no] == 60
    assert lanes.condition() == (
        f"(lane IN ({again.lane_no}, {last.lane_no}, {machine.lane_no}) OR (lane = {old.lane_no} AND step < 40))"
    )
    alone = lanes.of_attempt((10, "a10"))
    assert alone.shown(old.lane_no) == (0, 99) and again.lane_no not in alone.lanes
    assert alone.condition() == f"(lane IN ({old.lane_no}, {machine.lane_no}))"
    assert lanes.of_attempt(None).condition() == "(false)" and lanes.of_attempt(None).last_step is None


def test_a_third_attempt_may_begin_before_the_second() -> None:
    first, second = lane(1, ROW, 10, 99), Lane(lane_number(2, ROW), (20, "b"), 20, bytes(16), 1, 50, 79, 25, 29)
    third = Lane(lane_number(3, ROW), (30, "c"), 30, bytes(16), 1, 20, 29, 35, 39)
    lanes = resolve([first, second, third])
    assert lanes.cuts == {first.lane_no: 20, second.lane_no: 20}
    assert lanes.shown(second.lane_no) is None and lanes.last_step == 29


def test_attempts_beside_each_other_are_shown_together() -> None:
    first = Lane(lane_number(1, ROW), (10, "a"), 10, bytes(16), 1, 0, 99, 11, 25)
    beside = Lane(lane_number(2, ROW), (20, "b"), 20, bytes(16), 1, 0, 99, 21, 35)
    lanes = resolve([first, beside])
    assert not lanes.cuts and lanes.condition() == "" and lanes.last_step == 99


def test_the_order_in_which_lanes_come_does_not_matter() -> None:
    expected = resolve(LANES).offsets
    for order in itertools.permutations(LANES[:5]):
        assert resolve([*LANES[5:], *order]).offsets == expected


def test_no_rows_no_step() -> None:
    assert resolve([]).last_step is None
    assert resolve([lane(1, SYSTEM, 1, 5)]).last_step is None

"""What a courier reads of a spool that is torn, damaged, trimmed or still being written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from trackd.courier.delivery import Flight
from trackd.courier.lanes import SpoolLane
from trackd.courier.tail import START, Item, Position
from trackd.lane import Lane
from trackd_proto import batch, spool

from .spooling import make_lane

ROWS = 40


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    lane = make_lane(tmp_path)
    for i in range(ROWS):
        lane.row({"i": i, "text": "x" * (i * 7 % 60)})
    return lane


def chunk_path(lane: Lane, tmp_path: Path, number: int = 0) -> Path:
    return tmp_path / spool.chunk_name(lane.writer_id.hex(), number)


def courier_view(lane: Lane, tmp_path: Path, *, dead: bool = False) -> SpoolLane:
    view = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head")
    if dead:
        view.owner._is_dead = True
    return view


def drain(view: SpoolLane) -> list[Item]:
    items = []
    for _ in range(100):
        item = view.next_item()
        if item is not None:
            items.append(item)
    return items


def frame_offsets(data: bytes) -> list[int]:
    """Where the frames of a chunk begin."""
    offsets, position = [], spool.CHUNK_HEADER.size
    while True:
        length, _, _, _, seq = spool.FRAME.unpack_from(data, position)
        if seq != len(offsets) + 1:
            return offsets
        offsets.append(position)
        position = (position + spool.FRAME_BYTES + length + 7) & ~7


def covered(items: list[Item]) -> list[int]:
    seqs = [seq for item in items for seq in range(item.first_seq, item.next_seq)]
    assert seqs == sorted(set(seqs)), "seqs repeated or out of order"
    return seqs


def test_a_live_spool_is_read_only_up_to_the_published_seq(lane: Lane, tmp_path: Path) -> None:
    published = lane._words[spool.PUBLISHED]
    lane._words[spool.PUBLISHED] = 10
    view = courier_view(lane, tmp_path)
    assert covered(drain(view)) == list(range(1, 11))
    lane._words[spool.PUBLISHED] = published
    assert covered(drain(view)) == list(range(11, ROWS + 2))


def test_a_dead_writers_unpublished_records_are_found(lane: Lane, tmp_path: Path) -> None:
    lane._words[spool.PUBLISHED] = 10
    assert covered(drain(courier_view(lane, tmp_path, dead=True))) == list(range(1, ROWS + 2))


def test_bytes_of_an_interrupted_log_behind_the_end_are_not_taken_for_a_record(lane: Lane, tmp_path: Path) -> None:
    path = chunk_path(lane, tmp_path)
    data = bytearray(path.read_bytes())
    end = lane._state[2]
    data[end : end + 64] = bytes(range(64))
    path.write_bytes(data)
    items = drain(courier_view(lane, tmp_path, dead=True))
    assert covered(items) == list(range(1, ROWS + 2))
    assert not any(item.reason for item in items)


def test_every_damaged_byte_costs_at_most_its_own_record_and_is_declared(lane: Lane, tmp_path: Path) -> None:
    path = chunk_path(lane, tmp_path)
    whole = path.read_bytes()
    offsets = frame_offsets(whole)
    truth = {}
    for item in drain(courier_view(lane, tmp_path)):
        for number, record in enumerate(batch.split(item.data)):
            truth[item.first_seq + number] = bytes(record)
    rng = random.Random(7)
    for _ in range(300):
        at = rng.randrange(offsets[0], lane._state[2])
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        view = courier_view(lane, tmp_path, dead=True)
        items = drain(view)
        view.close()
        assert covered(items) == list(range(1, ROWS + 2)), f"flip at {at}"
        lost = [seq for item in items if item.reason for seq in range(item.first_seq, item.next_seq)]
        assert len(lost) <= 1, f"flip at {at} lost {lost}"
        for item in items:
            for number, record in enumerate(batch.split(item.data)):
                assert bytes(record) == truth[item.first_seq + number], f"a wrong payload after a flip at {at}"


def test_a_missing_tail_is_declared_exactly(lane: Lane, tmp_path: Path) -> None:
    path = chunk_path(lane, tmp_path)
    data = bytearray(path.read_bytes())
    offsets = frame_offsets(bytes(data))
    data[offsets[30] :] = bytes(len(data) - offsets[30])
    path.write_bytes(data)
    items = drain(courier_view(lane, tmp_path, dead=True))
    assert covered(items) == list(range(1, ROWS + 2))
    assert [(i.first_seq, i.count, i.reason) for i in items if i.reason] == [(31, ROWS + 1 - 30, "damaged")]


def test_an_open_loss_of_a_dead_writer_is_declared(lane: Lane, tmp_path: Path) -> None:
    lane._drop(ROWS, lane._state[6])
    lane._drop(ROWS, lane._state[6])
    items = drain(courier_view(lane, tmp_path, dead=True))
    assert covered(items) == list(range(1, ROWS + 4))
    assert [(i.first_seq, i.count, i.reason) for i in items if i.reason] == [(ROWS + 2, 2, "full")]


@pytest.mark.parametrize("expected", [1, 2, 17, ROWS, ROWS + 1, ROWS + 2])
def test_a_new_courier_goes_on_exactly_where_the_next_hop_is(lane: Lane, tmp_path: Path, expected: int) -> None:
    view = courier_view(lane, tmp_path)
    view.advance(expected - 1, expected - 1, 0)
    view.resume(expected)
    assert covered(drain(view)) == list(range(expected, ROWS + 2))


def test_what_the_spool_no_longer_has_is_declared_as_trimmed(tmp_path: Path) -> None:
    lane = make_lane(tmp_path)
    text = "t" * 9000
    while lane._words[spool.ROLLS] < 2:
        lane.row({"text": text})
    last = lane.watermarks().assigned
    chunk_path(lane, tmp_path, 0).unlink()
    view = courier_view(lane, tmp_path)
    view.resume(5)
    items = drain(view)
    assert items[0].reason == "trimmed"
    assert covered(items) == list(range(5, last + 1))


@pytest.mark.parametrize("is_new", [False, True], ids=["the same courier", "a new one"])
def test_what_the_hub_has_is_not_lost_when_a_next_hop_that_forgot_the_writer_asks_for_it(
    tmp_path: Path, is_new: bool
) -> None:
    """An agent forgets who was silent for a day, by a wall clock that may have jumped."""
    lane = make_lane(tmp_path)
    text = "t" * 9000
    while lane._words[spool.ROLLS] < 2:
        lane.row({"text": text})
    last = lane.watermarks().assigned
    view = courier_view(lane, tmp_path)
    send(view)
    view.advance(last, last, last)
    if is_new:
        view = courier_view(lane, tmp_path)
    view.resume(1)
    again = send(view)
    assert again[0].reason and covered(again) == list(range(1, last + 1))
    view.advance(last, last, 0)
    assert lane.watermarks().lost == 0


def send(view: SpoolLane) -> list[Item]:
    view.flight.window_bytes = 1 << 30
    items = drain(view)
    for item in items:
        view.flight.add(item)
    return items


def test_chunks_are_deleted_once_they_are_durable_and_not_before(tmp_path: Path) -> None:
    lane = make_lane(tmp_path)
    text = "t" * 9000
    while lane._words[spool.ROLLS] < 3:
        lane.row({"text": text})
    view = courier_view(lane, tmp_path)
    view.flight.window_bytes = 1 << 30
    items = drain(view)
    for item in items:
        view.flight.add(item)
    view.advance(items[-1].next_seq - 1, 0, 0)
    assert chunk_path(lane, tmp_path, 0).exists()
    view.advance(items[-1].next_seq - 1, items[-1].next_seq - 1, 0)
    assert not chunk_path(lane, tmp_path, 0).exists()
    assert not chunk_path(lane, tmp_path, 1).exists()
    assert chunk_path(lane, tmp_path, 2).exists()


def test_the_courier_has_the_next_chunk_ready(tmp_path: Path) -> None:
    lane = make_lane(tmp_path)
    view = courier_view(lane, tmp_path)
    text = "t" * 9000
    while lane._words[spool.ROLLS] < 4:
        lane.row({"text": text})
        view.next_item()
        view.prepare()
    assert lane._words[spool.UNPREPARED] == 1, "only the first chunk is made by the trainer itself"


def test_a_rewound_flight_sends_again_from_the_start_of_what_is_missing() -> None:
    flight = Flight(window_bytes=100)
    places = [Position(0, 64 + 10 * n, 1 + 5 * n, n) for n in range(5)]
    items = [Item(1 + 5 * n, 5, b"x" * 40, "", places[n], places[n + 1]) for n in range(4)]
    for item in items[:3]:
        assert flight.has_room()
        flight.add(item)
    assert not flight.has_room()
    assert flight.advance(7, 7, 0) == places[1]  # half of the second item is durable: it stays
    assert flight.restart(8) == places[1]
    assert flight.is_empty()
    assert START.next_seq == 1

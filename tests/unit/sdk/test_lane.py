"""What `log()` promises about the records it has taken, whatever happens to the process around it."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trackd import spool as files
from trackd.courier.lanes import SpoolLane
from trackd.lane import Lane
from trackd.spool import make_chunk
from trackd_proto import batch, limits, records, spool

from .spooling import START, TARGET, make_lane, read_items, read_records, read_rows, writers


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return make_lane(tmp_path)


def test_rows_come_back_in_order_with_their_steps(lane: Lane, tmp_path: Path) -> None:
    for i in range(100):
        lane.row({"loss": i / 7, "n": i})
    rows = read_rows(tmp_path, lane.writer_id)
    assert rows == [(i, {"loss": i / 7, "n": i}) for i in range(100)]


def test_the_first_record_says_where_the_writer_belongs(lane: Lane, tmp_path: Path) -> None:
    kind, _, _, body = read_records(tmp_path, lane.writer_id)[0]
    assert kind == records.START
    assert body["writer"] == {"host": "h", "role": "main", "pid": os.getpid()}
    assert (body["project"], body["run_id"], body["attempt"]) == ("p", "r", "a" * 32)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([({"a": 1}, None, None), ({"a": 2}, None, None)], [(0, 1), (1, 2)]),
        ([({"a": 1}, None, False), ({"b": 2}, None, None), ({"a": 3}, None, None)], [(0, 1), (0, 2), (1, 3)]),
        ([({"a": 1}, 7, None), ({"b": 2}, None, None), ({"a": 3}, None, None)], [(7, 1), (7, 2), (8, 3)]),
        ([({"a": 1}, 7, True), ({"b": 2}, None, None)], [(7, 1), (8, 2)]),
        ([({"a": 1}, 7, True), ({"b": 2}, 3, None), ({"a": 3}, None, None)], [(7, 1), (3, 2), (8, 3)]),
        ([({"a": 1}, -5, None), ({"b": 2}, None, None)], [(-5, 1), (0, 2)]),
        ([({"a": 1}, None, False), ({}, None, True), ({"a": 2}, None, None)], [(0, 1), (1, 2)]),
        ([({}, None, None), ({"a": 1}, None, None)], [(0, 1)]),
    ],
)
def test_steps(lane: Lane, tmp_path: Path, calls: list, expected: list) -> None:
    for data, step, commit in calls:
        lane.row(data, step, commit)
    assert [(step, next(iter(row.values()))) for step, row in read_rows(tmp_path, lane.writer_id)] == expected


def test_an_empty_row_writes_nothing(lane: Lane) -> None:
    before = lane.watermarks().assigned
    lane.row({})
    lane.row({}, 5)
    assert lane.watermarks().assigned == before


@pytest.mark.parametrize("data", [None, 3, "loss", [1, 2], [("a", 1)]])
def test_data_that_is_no_mapping_is_a_type_error(lane: Lane, data: object) -> None:
    with pytest.raises(TypeError, match="log"):
        lane.row(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "error"), [("3", TypeError), (1.5, TypeError), (2**62, ValueError), ([], TypeError)])
def test_a_wrong_step_is_an_error_that_names_it(lane: Lane, step: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="step"):
        lane.row({"a": 1}, step)  # type: ignore[arg-type]


def test_rows_larger_than_a_record_are_split_at_the_same_step(lane: Lane, tmp_path: Path) -> None:
    row = {f"key{i}": "x" * 20_000 for i in range(200)}
    lane.row(row)
    lane.row({"after": 1})
    merged: dict[str, object] = {}
    rows = read_rows(tmp_path, lane.writer_id)
    for step, part in rows[:-1]:
        assert step == 0
        merged |= part
    assert merged == row
    assert rows[-1] == (1, {"after": 1})


def test_a_value_larger_than_a_record_is_cut_and_its_row_kept(lane: Lane, tmp_path: Path) -> None:
    lane.row({"small": 1, "huge": "y" * (2 * limits.MAX_RECORD_BYTES)})
    merged: dict[str, object] = {}
    for _, part in read_rows(tmp_path, lane.writer_id):
        merged |= part
    assert merged["small"] == 1
    assert records.TAG in merged["huge"]  # type: ignore[operator]


def test_many_chunks(lane: Lane, tmp_path: Path) -> None:
    text = "z" * 3000
    for i in range(4000):
        lane.row({"text": text, "i": i})
    rows = read_rows(tmp_path, lane.writer_id)
    assert [row["i"] for _, row in rows] == list(range(4000))
    assert lane._words[spool.ROLLS] > 1


def test_latest_is_the_last_value_of_every_key(lane: Lane) -> None:
    lane.row({"a": 1, "b": {"c": 2}})
    lane.row({"a": 3})
    lane.row({"b": {"d": 4}})
    assert lane.latest() == {"a": 3, "b.c": 2, "b.d": 4}
    for i in range(1000):  # more shapes than are remembered one by one
        lane.row({f"k{i}": i, "a": i})
    latest = lane.latest()
    assert latest["a"] == 999
    assert all(latest[f"k{i}"] == i for i in range(1000))


def test_rows_after_close_are_counted_and_not_written(lane: Lane, tmp_path: Path) -> None:
    lane.row({"a": 1})
    lane.close()
    lane.row({"a": 2})
    lane.row({"a": 3})
    assert lane.refused == 2
    assert read_rows(tmp_path, lane.writer_id) == [(0, {"a": 1})]


def test_threads_share_a_lane_without_a_gap(lane: Lane, tmp_path: Path) -> None:
    def work(number: int) -> None:
        for i in range(2000):
            lane.row({"thread": number, "i": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_rows(tmp_path, lane.writer_id)
    assert [step for step, _ in rows] == list(range(16_000))
    for number in range(8):
        assert [row["i"] for _, row in rows if row["thread"] == number] == list(range(2000))


def test_a_full_spool_declares_exactly_what_it_dropped_and_goes_on(tmp_path: Path) -> None:
    lane = make_lane(tmp_path, quota=spool.CHUNK_SIZES[0])
    text = "q" * 100_000
    for i in range(200):
        lane.row({"i": i, "text": text})
    lost = lane.watermarks().lost
    assert 0 < lost < 200
    first_chunk = tmp_path / spool.chunk_name(lane.writer_id.hex(), 0)
    kept = first_chunk.read_bytes()
    first_chunk.unlink()  # the courier frees what is durable
    lane._full_until = 0.0
    lane.row({"i": 200})
    first_chunk.write_bytes(kept)
    items = read_items(tmp_path, lane.writer_id)
    assert sum(item.count for item in items if item.reason == "full") == lost
    rows = [r for item in items if not item.reason for r in batch.decode_all(item.data, item.count)]
    assert len(rows) == 1 + 201 - lost
    assert rows[-1][3] == {"i": 200}


def test_the_spool_keeps_to_its_quota_and_a_full_one_costs_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = 10 * limits.MIB
    lane = make_lane(tmp_path, quota=quota)
    while not lane.watermarks().lost:
        lane.row({"text": "q" * 100_000})
    held = sum(path.stat().st_size for path in tmp_path.glob("*.chunk*"))
    assert quota - spool.CHUNK_SIZES[0] < held <= quota, "small chunks fill what large ones leave"
    lane._full_until = 0.0
    calls: list[str] = []
    for name in ("listdir", "scandir", "statvfs", "open", "access"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real, **k: (calls.append(_name), _real(*a, **k))[1])
    for _ in range(1000):
        lane.row({"i": 1})
    assert calls.count("access") == len(calls) <= 1 + 60, "one look every 100 ms, however many chunks there are"
    assert lane.watermarks().lost > 1000


def test_a_chunk_larger_than_the_quota_is_no_end(tmp_path: Path) -> None:
    """The courier made it ready, in haste."""
    lane = make_lane(tmp_path, quota=spool.CHUNK_SIZES[1])
    second = tmp_path / spool.chunk_name(lane.writer_id.hex(), 1)
    os.close(make_chunk(second, lane.writer_id, 1, spool.CHUNK_SIZES[1], is_filled=True))
    while not lane.watermarks().lost:
        lane.row({"text": "q" * 100_000})
    (tmp_path / spool.chunk_name(lane.writer_id.hex(), 0)).unlink()  # the courier frees what is durable
    lane._full_until = 0.0
    lane.row({"i": 1})
    assert (tmp_path / spool.chunk_name(lane.writer_id.hex(), 2)).exists()
    lane.row({"i": 2})
    assert lane.watermarks().assigned - lane._words[spool.PUBLISHED] == 0, "written, not dropped"


def test_what_is_being_lost_when_a_run_ends_is_declared_by_the_courier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = make_lane(tmp_path, quota=spool.CHUNK_SIZES[0])
    while not lane.watermarks().lost:
        lane.row({"text": "q" * 100_000})
    lane.append(records.EXIT, {"state": "finished"})
    marks = lane.watermarks()
    lane.close()
    seen = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head")
    items = [item for _ in range(20) if (item := seen.next_item())]
    assert not any(item.reason for item in items), "the process may still find space for it"
    monkeypatch.setattr("trackd.courier.lanes._FINISH_S", -1.0)
    (declared,) = (item for _ in range(20) if (item := seen.next_item()))
    assert (declared.reason, declared.count) == ("full", marks.lost)
    assert declared.next_seq - 1 == marks.assigned
    for item in (*items, declared):
        seen.flight.add(item)
    seen.advance(marks.assigned, marks.assigned, 0)
    assert seen.next_item() is None
    assert seen.is_sent()


def test_what_an_interrupted_call_left_is_never_taken_for_the_row_that_was_dropped_in_its_place(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane.row({"i": 0, "text": "q" * 600_000})
    before = lane._state
    lane.row({"i": 1})
    lane._state = before  # an interrupt came when the frame was whole and the state not yet stored
    lane._words[spool.PUBLISHED] = before[3]
    monkeypatch.setattr(Lane, "_roll", lambda self: False)
    lane.row({"i": 2, "text": "q" * 600_000})
    assert lane.watermarks().lost == 1
    reader = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head")
    items = list(iter(lambda: reader.tail.read(1 << 20, True), None))
    reader.close()
    assert [(item.first_seq, item.count, item.reason) for item in items] == [(1, 2, ""), (3, 1, "full")]


def test_on_a_full_disk_what_is_delivered_makes_room_for_what_comes(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though others take all that becomes free: with a hub that is up nothing is lost."""
    reader = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head")
    reader.prepare()
    refused = []

    def full(path: Path, size: int) -> None:
        refused.append(path)
        raise files.NoSpaceError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(files, "check_room", full)
    found: list[int] = []
    for i in range(80):
        lane.row({"i": i, "text": "q" * 100_000})
        reader.prepare()
        while item := reader.next_item():
            assert not item.reason
            reader.flight.add(item)
            reader.advance(item.next_seq - 1, item.next_seq - 1, 0)
            found += [r[3]["i"] for r in batch.decode_all(item.data, item.count) if r[0] == records.ROW_ORDINAL]
    reader.close()
    assert len(refused) >= 3 and lane._words[spool.ROLLS] >= 4
    assert lane.watermarks().lost == 0 and found == list(range(80))


def test_a_spool_keeps_to_its_quota_when_the_courier_prepares_its_chunks(tmp_path: Path) -> None:
    quota = 4 << 20
    lane = make_lane(tmp_path, quota=quota)
    reader = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head", quota)
    most = 0
    for i in range(300):
        lane.row({"i": i, "text": "q" * 100_000})
        reader.prepare()
        if i < 100 and (item := reader.next_item()):  # delivered at first, and then no more
            reader.flight.add(item)
            reader.advance(item.next_seq - 1, item.next_seq - 1, 0)
        most = max(most, sum(path.stat().st_size for path in tmp_path.glob("*.chunk")))
    reader.close()
    assert lane.watermarks().lost > 0, "it became full"
    assert most <= quota


def test_waiting_declares_a_loss_when_there_is_space_again_though_no_row_follows(tmp_path: Path) -> None:
    lane = make_lane(tmp_path, quota=spool.CHUNK_SIZES[0])
    for i in range(100):
        lane.row({"i": i, "text": "q" * 100_000})
    lost = lane.watermarks().lost
    first_chunk = tmp_path / spool.chunk_name(lane.writer_id.hex(), 0)
    kept = first_chunk.read_bytes()
    assert not lane.wait("durable", 0.01), "nobody has read it"
    first_chunk.unlink()  # the courier frees what is durable
    lane._full_until = 0.0
    assert not lane.wait("durable", 0.01), "nobody has read the loss"
    first_chunk.write_bytes(kept)
    (declared,) = (item for item in read_items(tmp_path, lane.writer_id) if item.reason)
    assert (declared.reason, declared.count, declared.next_seq - 1) == ("full", lost, lane.watermarks().assigned)
    lane._words[spool.DURABLE] = declared.next_seq - 1
    assert lane.wait("durable", 0.0)


@pytest.mark.parametrize("size", [limits.MAX_RECORD_BYTES - n for n in (0, 40, 60, 64, 100, 128, 200)])
def test_a_record_as_large_as_the_smallest_chunk_finds_its_place(lane: Lane, tmp_path: Path, size: int) -> None:
    lane._chunks._made_s -= 60.0  # not in a hurry: the next chunk would be a small one
    lane.row({"a": 1})
    lane.row({"text": "q" * (size - 30)})
    lane.row({"a": 2})
    rows = read_rows(tmp_path, lane.writer_id)
    assert [row.get("a") for _, row in rows if "a" in row] == [1, 2]
    assert sum(len(row["text"]) > 1000 for _, row in rows if "text" in row) == 1


def test_rows_of_every_size_stand_where_the_zeros_ahead_of_them_end(lane: Lane, tmp_path: Path) -> None:
    sizes = [1, 100, 5_000, 100_000, 262_000, 262_144, 300_000, 900_000, 7] * 5
    for size in sizes:
        lane.row({"text": "q" * size})
    assert [len(row["text"]) for _, row in read_rows(tmp_path, lane.writer_id)] == sizes


def test_log_from_signal_handlers_neither_hangs_nor_loses(lane: Lane, tmp_path: Path) -> None:
    """T23: a handler that interrupts log() anywhere writes through the second lane."""
    fired = 0

    def handler(*_: object) -> None:
        nonlocal fired
        fired += 1
        lane.row({"from_handler": fired})

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        count = 0
        deadline = time.monotonic() + 60
        while fired < 300 and time.monotonic() < deadline:
            lane.row({"main": count})
            count += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fired >= 300
    rows = [row for writer in writers(tmp_path) for _, row in read_rows(tmp_path, writer)]
    assert sorted(row["main"] for row in rows if "main" in row) == list(range(count))
    assert sorted(row["from_handler"] for row in rows if "from_handler" in row) == list(range(1, fired + 1))
    assert any(target.role == "nested" for target in writers(tmp_path).values())


def test_log_from_a_finalizer_inside_log(lane: Lane, tmp_path: Path) -> None:
    class Noisy:
        def __init__(self) -> None:
            self.me = self  # collected by the cyclic collector only, which runs wherever it likes

        def __del__(self) -> None:
            lane.row({"finalized": 1})

    threshold = gc.get_threshold()
    gc.set_threshold(3)
    try:
        for i in range(2000):
            Noisy()
            lane.row({"i": i, "nested": {"a": [1, 2, {"b": i}]}})
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    rows = [row for writer in writers(tmp_path) for _, row in read_rows(tmp_path, writer)]
    assert sum("finalized" in row for row in rows) == 2000
    assert sum("i" in row for row in rows) == 2000


def test_rows_from_inside_a_call_take_steps_that_no_later_row_gets(lane: Lane, tmp_path: Path) -> None:
    """Where the history is read, of two rows of one key at one step only one is to be seen."""
    lane.row({"x": 0})
    for i in (1, 5):
        with lane._lock:  # as a handler inside a call finds it
            for value in range(i, i + 3):
                lane.row({"x": value})
        lane.row({"x": i + 3})
    lane.row({"x": 100}, step=100, commit=True)
    lane.row({"x": 101})
    with lane._lock:
        lane.row({"x": 102})
    lane.row({"x": 103})
    rows = [row for writer in writers(tmp_path) for row in read_rows(tmp_path, writer)]
    steps = {row["x"]: step for step, row in rows}
    assert len(set(steps.values())) == len(rows) == 13, rows
    assert sorted(steps, key=lambda x: steps[x]) == sorted(steps)


def test_a_row_from_inside_the_call_for_another_row_of_its_keys_has_a_step_of_its_own(
    lane: Lane, tmp_path: Path
) -> None:
    """As when the collector runs a finalizer that logs inside the `log()` of another finalizer."""

    class Loud:
        def __init__(self, value: int, *inner: Loud) -> None:
            self.value, self.inner = value, inner

        def __float__(self) -> float:  # asked for under the lock, for rows whose keys are known
            for each in self.inner:
                lane.row({"x": each})
            return float(self.value)

        item = __float__

    lane.row({"x": 0})
    lane.row({"x": Loud(1, Loud(2), Loud(3, Loud(4)))})
    lane.row({"x": 5})
    rows = [row for writer in writers(tmp_path) for row in read_rows(tmp_path, writer)]
    steps = {row["x"]: step for step, row in rows}
    assert sorted(steps) == [0, 1, 2, 3, 4, 5] and len(set(steps.values())) == 6, rows
    assert len(writers(tmp_path)) > 1, "some were inside"


def interrupt_loop(lane: Lane, interrupts: int) -> tuple[list[int], int]:
    """Log in a loop that is hit by asynchronous exceptions; the numbers whose log() returned, and how many hit."""
    returned: list[int] = []
    hits: list[int] = []
    finished: list[int] = []  # not thread.is_alive(): an interrupt inside it makes it lie
    numbers = itertools.count(1)
    main = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def interrupter() -> None:
        while not begun:
            time.sleep(0.001)
        while len(hits) < interrupts:
            raise_in(main, ctypes.py_object(KeyboardInterrupt))
            time.sleep(random.random() * 0.0001)
        finished.append(1)

    begun: list[int] = []  # nor an Event: an interrupt inside set() leaves its lock held
    thread = threading.Thread(target=interrupter)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that the other thread gets its turn anywhere in here
    thread.start()

    def work() -> None:
        while not finished:
            try:
                while not finished:
                    number = next(numbers)
                    lane.row({"i": number})
                    returned.append(number)
            except KeyboardInterrupt:
                hits.append(1)

    def shielded(depth: int) -> None:
        """An exception can also hit the handling of another one, and the handling of that."""
        while True:
            try:
                if depth:
                    shielded(depth - 1)
                else:
                    begun.append(1)
                    work()
                    time.sleep(0.01)  # the last one may still be on its way
                return
            except KeyboardInterrupt:
                continue

    shielded(5)
    sys.setswitchinterval(interval)
    thread.join()
    return returned, len(hits)


def test_keyboard_interrupts_anywhere_inside_log(lane: Lane, tmp_path: Path) -> None:
    """T22, short form (scripts/torture log has the long one): no gap, no reused seq, no lock left held."""
    returned, _ = interrupt_loop(lane, 2000)
    lane.row({"i": -1})
    rows = read_rows(tmp_path, lane.writer_id)  # asserts gap-free seqs
    numbers = [row["i"] for _, row in rows]
    assert len(numbers) == len(set(numbers))
    assert set(returned) <= set(numbers)
    done = threading.Event()
    threading.Thread(target=lambda: (lane.row({"i": -2}), done.set())).start()
    assert done.wait(10), "the lane's lock was left held"


@pytest.mark.parametrize("behind_pythons_back", [False, True])
def test_a_forked_child_gets_a_writer_of_its_own(lane: Lane, tmp_path: Path, behind_pythons_back: bool) -> None:
    lane.row({"who": "parent", "i": 0})
    pid = ctypes.CDLL(None).fork() if behind_pythons_back else os.fork()
    if pid == 0:
        try:
            for i in range(50):
                lane.row({"who": "child", "i": i})
            lane.close()
        finally:
            os._exit(0)
    lane.row({"who": "parent", "i": 1})
    assert os.waitpid(pid, 0)[1] == 0
    found = writers(tmp_path)
    assert sorted(target.role for target in found.values()) == ["fork", "main"]
    by_role = {target.role: read_rows(tmp_path, writer) for writer, target in found.items()}
    assert [row["i"] for _, row in by_role["main"]] == [0, 1]
    assert [(step, row["i"]) for step, row in by_role["fork"]] == [(i, i) for i in range(50)]
    child = next(writer for writer, target in found.items() if target.role == "fork")
    start = read_records(tmp_path, child)[0][3]
    assert start["writer"]["parent"] == lane.writer_id.hex()
    assert start["writer"]["pid"] == pid


def test_a_fork_while_other_threads_are_inside_log(lane: Lane, tmp_path: Path) -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            lane.row({"busy": 1})

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)  # a child that hangs dies loudly
                lane.row({"child": 1})
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    forks = [writer for writer, target in writers(tmp_path).items() if target.role == "fork"]
    assert len(forks) == 20
    assert all(read_rows(tmp_path, writer) == [(0, {"child": 1})] for writer in forks)


def in_child(work: Callable[[], None]) -> None:
    """Runs `work` in a forked child; fails if it fails there, or hangs."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_threads_of_a_forked_child_write_nothing_to_its_parents_files(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first of them makes the child's own, which takes system calls, the others log as well."""
    first_files = Lane._first_files

    def slowly(self: Lane) -> Any:
        time.sleep(0.1)
        return first_files(self)

    def fifty(t: int) -> None:
        for i in range(50):
            lane.row({"t": t, "i": i})

    def threads() -> None:
        monkeypatch.setattr(Lane, "_first_files", slowly)
        several = [threading.Thread(target=fifty, args=(t,)) for t in range(8)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join()
        lane.close()

    lane.row({"i": 0})
    in_child(threads)
    lane.row({"i": 1})
    by_role = {target.role: writer for writer, target in writers(tmp_path).items()}
    assert by_role.keys() == {"main", "fork"}
    assert [row for _, row in read_rows(tmp_path, by_role["main"])] == [{"i": 0}, {"i": 1}]
    rows = [row for _, row in read_rows(tmp_path, by_role["fork"])]
    assert [[row["i"] for row in rows if row["t"] == t] for t in range(8)] == [list(range(50))] * 8
    assert read_records(tmp_path, by_role["fork"])[0][0] == records.START


def test_a_handler_inside_a_childs_first_call_neither_hangs_nor_loses(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_files = Lane._first_files

    def interrupted(self: Lane) -> Any:
        made = first_files(self)
        if not handled:
            signal.raise_signal(signal.SIGUSR1)
        return made

    def handler(*_: object) -> None:
        handled.append(1)
        lane.row({"who": "handler"})

    def first_call() -> None:
        monkeypatch.setattr(Lane, "_first_files", interrupted)
        signal.signal(signal.SIGUSR1, handler)
        lane.row({"who": "child"})
        assert handled
        lane.close()

    handled: list[int] = []
    lane.row({"who": "parent"})
    in_child(first_call)
    by_role = {target.role: writer for writer, target in writers(tmp_path).items()}
    assert [row for _, row in read_rows(tmp_path, by_role["main"])] == [{"who": "parent"}]
    assert sorted(row["who"] for _, row in read_rows(tmp_path, by_role["fork"])) == ["child", "handler"]


def test_a_child_that_never_logged_leaves_its_parents_head_alone(lane: Lane, tmp_path: Path) -> None:
    """It has the parent's state of the moment of the fork, and the parent's head as it is now."""

    def look_and_wait() -> None:
        os.read(there, 1)
        lane.latest()
        lane.publish()
        assert lane.wait("durable", 5.0), "it has nothing to wait for"

    there, here = os.pipe()
    lane.row({"i": 0})
    with lane._lock:  # as another thread of the parent may at the fork: nobody gives it back in the child
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(20)
                thread = threading.Thread(target=look_and_wait)
                thread.start()
                thread.join()
                code = 0
            finally:
                os._exit(code)
    for i in range(1, 100):
        lane.row({"i": i})
    os.write(here, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(here)
    os.close(there)
    (main,) = writers(tmp_path)
    assert [row["i"] for _, row in read_rows(tmp_path, main)] == list(range(100))


def test_a_lane_for_another_target(tmp_path: Path) -> None:
    other = Lane(
        tmp_path, spool.Target("offline", "h:1", "ü", "x", "/d", "main", "b" * 32, 2, True, "name"), START, 1 << 20
    )
    assert writers(tmp_path)[other.writer_id].project == "ü"
    assert other.target != TARGET

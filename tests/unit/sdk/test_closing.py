"""`finish()` while a call of `log()` is under way: what that call was given is delivered, or counted as refused."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.opcodes import watch
from trackd.courier.lanes import SpoolLane
from trackd.lane import Lane
from trackd_proto import batch, records, spool

from .spooling import make_lane, read_rows, writers

STRIDE = int(os.environ.get("EVERY_NTH_BYTECODE", "5"))
"""1 in the long form, scripts/torture handlers."""
ROWS: dict[str, list[dict[str, Any]]] = {
    "a shape seen before": [{"i": 0}, {"i": 1}],
    "a new shape": [{"i": 0, "more": 1}, {"i": 1}],
    "a new chunk": [{"i": 0, "text": "q" * 900_000}, {"i": 1, "text": "q" * 300_000}],
}
"""Row 0 is logged in peace, row 1 is the one that is interrupted."""


def _stride(kind: str) -> int:
    return STRIDE**2 if kind == "a new chunk" else STRIDE  # it has 1,500 bytecodes


class Courier:
    """Reads as the courier does, and removes the files as soon as the courier would."""

    def __init__(self, directory: Path, writer_id: bytes) -> None:
        self.lane = SpoolLane(directory / f"{writer_id.hex()}.head")
        self.rows: list[int] = []
        self.was_early = False

    def round(self) -> None:
        while item := self.lane.next_item():
            assert not item.reason
            self.rows += [r[3]["i"] for r in batch.decode_all(item.data, item.count) if r[0] == records.ROW_ORDINAL]
            self.lane.flight.add(item)
            self.lane.advance(item.next_seq - 1, item.next_seq - 1, 0)
        if self.lane.has_files and self.lane.is_sent():
            self.lane.remove_files()


def call_at(opcode: int, handler: Callable[[], None], call: Callable[[], None]) -> bool:
    """Run `handler` before the n-th bytecode of the SDK that `call` executes; whether it got that far."""

    def see(number: int, _frame: FrameType) -> None:
        if number == opcode:
            handler()

    return watch(call, see) >= opcode


def interrupted(directory: Path, kind: str, opcode: int, close: Callable[[Lane], None]) -> tuple[bool, Lane, Courier]:
    directory.mkdir()
    lane = make_lane(directory)
    lane.row(ROWS[kind][0])
    courier = Courier(directory, lane.writer_id)

    def handler() -> None:
        close(lane)
        courier.round()
        courier.was_early = not courier.lane.has_files

    was_hit = call_at(opcode, handler, lambda: lane.row(ROWS[kind][1]))
    return was_hit, lane, courier


@pytest.mark.parametrize("kind", ROWS)
def test_finish_in_a_signal_handler_at_every_bytecode_of_log(tmp_path: Path, kind: str) -> None:
    """T23: the courier may read and free everything between the handler and the rest of the call."""
    delivered = refused = 0
    opcode = random.randint(1 - _stride(kind), 0)
    while True:
        opcode += _stride(kind)
        was_hit, lane, courier = interrupted(tmp_path / str(opcode), kind, opcode, Lane.close)
        if not was_hit:
            break
        lane.row({"i": 2})  # the handler's finish() is over: always refused
        courier.round()
        assert courier.rows + [1, 2][-lane.refused :] == [0, 1, 2], (opcode, courier.rows, lane.refused)
        assert lane._words[spool.CLOSED] == spool.ENDED, "the next call says that this is all"
        assert not courier.lane.has_files, "everything is sent: nothing is kept"
        delivered += lane.refused == 1
        refused += lane.refused == 2
        shutil.rmtree(tmp_path / str(opcode))
    assert delivered > 30 // _stride(kind), "it was not interrupted in its middle"
    assert refused > 10 // _stride(kind), "nor before it had begun"


@pytest.mark.parametrize("kind", ROWS)
def test_finish_of_another_thread_at_every_bytecode_of_log(tmp_path: Path, kind: str) -> None:
    threads: list[threading.Thread] = []

    def close(lane: Lane) -> None:
        threads.append(threading.Thread(target=lane.close))
        threads[-1].start()
        if not lane._lock._is_owned():  # type: ignore[attr-defined]
            threads[-1].join()

    waited = 0
    opcode = random.randint(1 - _stride(kind), 0)
    while True:
        opcode += _stride(kind)
        was_hit, lane, courier = interrupted(tmp_path / str(opcode), kind, opcode, close)
        if not was_hit:
            break
        threads[-1].join()
        lane.row({"i": 2})
        courier.round()
        assert courier.rows + [1, 2][-lane.refused :] == [0, 1, 2], (opcode, courier.rows, lane.refused)
        assert not courier.lane.has_files
        waited += not courier.was_early
        shutil.rmtree(tmp_path / str(opcode))
    assert waited > 10 // _stride(kind)


def test_the_process_may_end_without_another_call(tmp_path: Path) -> None:
    """finish() in a handler, then the interrupted call as the last thing that the process does."""
    for opcode in range(1, 400, 20):
        was_hit, lane, courier = interrupted(tmp_path / str(opcode), "a shape seen before", opcode, Lane.close)
        if not was_hit:
            break
        courier.lane.owner.is_dead = lambda: True  # type: ignore[method-assign]
        courier.round()
        assert len(courier.rows) + lane.refused == 2
    assert opcode > 50


def test_what_is_set_after_the_end_is_refused_too(tmp_path: Path) -> None:
    lane = make_lane(tmp_path)
    calls: list[int] = []
    lane.on_refused = lambda: calls.append(1)
    lane.close()
    lane.append(records.CONFIG, {"a": 1})
    assert (lane.refused, len(calls)) == (1, 1)
    assert read_rows(tmp_path, lane.writer_id) == []


def test_finish_while_a_second_lane_is_being_made_ends_that_lane_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = make_lane(tmp_path)
    make = Lane._begin

    def begin(self: Lane, target: spool.Target, start: dict[str, Any]) -> Any:
        alive = make(self, target, start)
        if target.role == "nested":  # a second handler, inside the first one's call
            lane.append(records.EXIT, {"state": "finished"})
            lane.close()
        return alive

    monkeypatch.setattr(Lane, "_begin", begin)
    with lane._lock:
        lane.row({"i": 0})
        lane.row({"i": 1})
    assert lane.refused == 1
    (nested,) = (writer for writer, target in writers(tmp_path).items() if target.role == "nested")
    courier = Courier(tmp_path, nested)
    courier.round()
    assert courier.rows == [0]
    assert not courier.lane.has_files

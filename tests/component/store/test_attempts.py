"""A run that was killed and began again from an older checkpoint is one clean curve, and every attempt stays readable:
hot, compacted, and from rollups."""

import random
from typing import Any

import numpy as np
import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore, charts, rollup_reads, rollups
from trackd_proto import records

ATTEMPTS = [(0, 3000), (1000, 1800), (1600, 2500)]
"""First step and the one after the last of each attempt: killed, begun again from a checkpoint, twice. The last
does not reach what the first had reached."""


def attempt(number: int, first: int, after: int) -> Script:
    """Rows of which the value tells the attempt."""
    start_us = BORN_US + number * 1_000_000_000
    made = Script(writer_id(number), f"a{number}", start_us).start()
    for step in range(first, after):
        made.row(step, {"v": number * 10_000.0 + step, f"only{number}": "x"}, start_us + 1 + step, records.ROW)
    return made


MADE = [attempt(number, *span) for number, span in enumerate(ATTEMPTS, 1)]
CURVE = [*range(10_000, 11_000), *range(21_000, 21_600), *range(31_600, 32_500)]


def values(store: EmbeddedStore, **more: Any) -> list[float]:
    asked = {"keys": None, "start": None, "end": None, "stream": "default"} | more
    return [row["v"] for rows in store.scan("p", "r", **asked) for row in rows]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollups already for small series."""
    monkeypatch.setattr(charts, "LONG", 1)
    monkeypatch.setattr(rollups, "MIN_POINTS", 100)
    monkeypatch.setattr(rollup_reads, "CHUNK_POINTS", 300)


def check(store: EmbeddedStore) -> None:
    """Every way of reading tells the same one curve."""
    assert values(store) == CURVE
    assert values(store, keys=["v"]) == CURVE
    assert values(store, start=990, end=1010) == CURVE[990:1010]
    assert values(store, steps=[999, 1000, 2499, 2999]) == [CURVE[999], CURVE[1000], CURVE[2499]]
    rows = [row for some in store.scan("p", "r", keys=None, start=None, end=None, stream="default") for row in some]
    assert [row["_step"] for row in rows if "only1" in row] == list(range(1000)), "no key of what was abandoned"
    run = store.run("p", "r")
    assert run is not None and (run["last_step"], run["attempts"], run["summary"]["v"]) == (2499, 3, 32_499.0)
    for axis, buckets in (("_step", 10_000), ("_step", 20), ("_relative", 10_000), ("_relative", 20)):
        (line,) = store.chart(ChartQuery([("p", "r")], ["v"], buckets, axis))
        assert line.total == len(CURVE), (axis, buckets)
        assert line.min.min() == 10_000 and line.max.max() == 32_499
        assert np.sum(line.mean * line.count) == pytest.approx(sum(CURVE))
    (part,) = store.chart(ChartQuery([("p", "r")], ["v"], 16, start=500, end=1700))
    assert part.total == 1201 and part.count.sum() == 1201
    for number, (first, after) in enumerate(ATTEMPTS, 1):
        own = [number * 10_000 + step for step in range(first, after)]
        assert values(store, attempt=number) == own
        (line,) = store.chart(ChartQuery([("p", "r")], ["v"], 20, attempt=number))
        assert (line.total, line.min.min(), line.max.max()) == (len(own), own[0], own[-1])
    assert values(store, attempt=4) == [] and store.chart(ChartQuery([("p", "r")], ["v"], attempt=4)) == []


@pytest.mark.usefixtures("small")
def test_one_curve_in_any_order_of_arrival(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [[made.batch(seq, 700) for seq in range(1, len(made.written) + 1, 700)] for made in MADE]
    rng = random.Random(7)
    while any(left):
        store.ingest([rng.choice([queue for queue in left if queue]).pop(0)])
        if rng.random() < 0.2:
            store.compact()
    check(store)
    store.compact()
    check(store)
    # More points than are held at once: read over time chunk by chunk.
    monkeypatch.setattr(charts, "HELD_POINTS", 10)
    check(store)


def test_one_curve_of_points(store: EmbeddedStore) -> None:
    for made in MADE:
        store.ingest([made.whole()])
    check(store)


def test_rows_without_a_step_go_on_behind_what_is_shown(store: EmbeddedStore) -> None:
    last = Script(writer_id(9), "a9", BORN_US + 9_000_000_000).start()
    for ordinal in range(3):
        last.row(ordinal, {"v": float(ordinal)}, last.start_us + ordinal)
    for made in (last, MADE[1], MADE[0]):  # the first attempt reached step 2999, the second, from 1000 on, 1799
        store.ingest([made.whole()])
    assert values(store, start=1799) == [21_799.0, 0.0, 1.0, 2.0]
    run = store.run("p", "r")
    assert run is not None and run["last_step"] == 1802


def test_processes_beside_each_other_are_one_curve_too(store: EmbeddedStore) -> None:
    """Two ranks that gave one id: two attempts as far as the hub knows, and neither replaces the other."""
    for rank in (1, 2):
        made = Script(writer_id(rank), f"rank{rank}", BORN_US + rank).start()
        for step in range(100):
            made.row(step, {f"loss/{rank}": float(step)}, BORN_US + 10 + step, records.ROW)
        store.ingest([made.whole()])
    rows = [row for some in store.scan("p", "r", keys=None, start=None, end=None, stream="default") for row in some]
    assert len(rows) == 100 and all("loss/1" in row and "loss/2" in row for row in rows)

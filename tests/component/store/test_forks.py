"""Rewinds (`resume_from`) and forks (`fork_from`): one curve from the parent's rows and the run's own, whatever arrives
first, hot and compacted; what a fork shows outlives its parent."""

import random
from typing import Any

import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore, charts, rollup_reads, rollups
from trackd_proto import records

SECOND = 1_000_000


def attempt(number: int, run_id: str, first: int, after: int, *, at: tuple[str, int] | None = None) -> Script:
    """Rows first … after - 1 of which the value tells the attempt; with `at` they have no step of their own."""
    start_us = BORN_US + number * 1000 * SECOND
    made = Script(writer_id(number), f"a{number}", start_us, run_id=run_id)
    made.start(**({"branch": {"run_id": at[0], "step": at[1]}} if at else {}))
    made.add(records.CONFIG, start_us, 0, {"own": number, f"only{number}": True})
    for index, step in enumerate(range(first, after)):
        kind, x = (records.ROW_ORDINAL, index) if at else (records.ROW, step)
        made.row(x, {"v": number * 10_000.0 + step}, start_us + 1 + index, kind)
    return made


PARENT = attempt(1, "p", 0, 1000)
REWOUND = attempt(2, "p", 501, 700, at=("p", 500))
CHILD = attempt(3, "c", 601, 900, at=("p", 600))
AGAIN = attempt(4, "c", 800, 950)
GRANDCHILD = attempt(5, "g", 851, 860, at=("c", 850))
LATER = attempt(6, "p", 301, 400, at=("p", 300))
"""Rewinds the parent when its forks had begun: it is none of their business."""
MADE = [PARENT, REWOUND, CHILD, AGAIN, GRANDCHILD, LATER]
PARENTS = [*range(10_000, 10_301), *range(60_301, 60_400)]
CHILDS = [*range(10_000, 10_501), *range(20_501, 20_601), *range(30_601, 30_800), *range(40_800, 40_950)]
GRANDCHILDS = [*CHILDS[:851], *range(50_851, 50_860)]


def values(store: EmbeddedStore, run_id: str, **more: Any) -> list[float]:
    asked = {"keys": None, "start": None, "end": None, "stream": "default"} | more
    return [row["v"] for rows in store.scan("p", run_id, **asked) for row in rows]


def check(store: EmbeddedStore, curves: dict[str, list[int]]) -> None:
    for run_id, curve in curves.items():
        assert values(store, run_id) == curve, run_id
        assert values(store, run_id, start=290, end=310) == curve[290:310]
        run = store.run("p", run_id)
        assert run is not None and run["last_step"] == len(curve) - 1, run_id
        for axis, buckets in (("_step", 5000), ("_step", 16), ("_timestamp", 16)):
            (line,) = store.chart(ChartQuery([("p", run_id)], ["v"], buckets, axis))
            assert (line.total, line.max.max()) == (len(curve), max(curve)), (run_id, axis)
        (key,) = store.keys("p", run_id)
        assert (key["key"], key["type"], key["last"], key["last_step"]) == ("v", "number", curve[-1], len(curve) - 1)


CURVES = {"p": PARENTS, "c": CHILDS, "g": GRANDCHILDS}


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_arrival(store: EmbeddedStore, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "LONG", 1)
    monkeypatch.setattr(rollups, "MIN_POINTS", 100)
    monkeypatch.setattr(rollup_reads, "CHUNK_POINTS", 300)
    left = [[made.batch(seq, 300) for seq in range(1, len(made.written) + 1, 300)] for made in MADE]
    rng = random.Random(seed)
    while any(left):
        store.ingest([rng.choice([queue for queue in left if queue]).pop(0)])
        if rng.random() < 0.1:
            store.compact()
    check(store, CURVES)
    store.compact()
    check(store, CURVES)
    assert values(store, "p", attempt=1) == list(range(10_000, 11_000)), "what was abandoned stays readable"
    assert values(store, "c", attempt=1) == list(range(30_601, 30_900)), "of a fork an attempt is its own rows"
    run = store.run("p", "g")
    assert run is not None
    assert run["config"] == {"own": 5, **{f"only{n}": True for n in (1, 2, 3, 4, 5, 6)}}
    found = store.runs("p", where="config.only2 = true")
    assert {each["run_id"] for each in found["runs"]} == {"p", "c", "g"}, "what a fork inherits can be searched for"


def test_the_attempts_tell_where_they_begin_and_how_far_they_count(store: EmbeddedStore) -> None:
    ending = Script(writer_id(9), "a1", PARENT.start_us, "courier", run_id="p").start()
    ending.add(records.EXIT, BORN_US + 1500 * SECOND, 0, {"state": "killed", "exit_code": 137, "cause": "SIGKILL"})
    for made in (*MADE, ending):
        store.ingest([made.whole()])
    first, second, _ = store.attempts("p", "p")
    assert (first["state"], first["cause"], first["exit_code"]) == ("killed", "SIGKILL", 137)
    assert (first["rows"], first["first_step"], first["last_step"], first["superseded_from"]) == (1000, 0, 999, 301)
    assert (second["from_run"], second["from_step"], second["first_step"], second["last_step"]) == (None, 500, 501, 699)
    fork, again = store.attempts("p", "c")
    assert (fork["from_run"], fork["from_step"], fork["superseded_from"]) == ("p", 600, 800) and fork["from_known"]
    assert (again["number"], again["from_run"], again["superseded_from"]) == (2, None, None)
    assert (again["first_step"], again["last_step"], again["host"], again["pid"]) == (800, 949, "box", 7)
    assert fork["state"] == "lost contact", "nothing says how it ended, and another attempt came after it"
    assert store.attempts("p", "none") == []


def test_a_rewind_cuts_before_it_has_rows(store: EmbeddedStore) -> None:
    store.ingest([PARENT.whole()])
    store.ingest([REWOUND.batch(1, 1)])
    assert values(store, "p") == list(range(10_000, 10_501))


def test_ranks_that_rewind_to_the_same_place_stay_beside_each_other(store: EmbeddedStore) -> None:
    store.ingest([PARENT.whole()])
    for number in (2, 3):
        made = Script(writer_id(number), f"rank{number}", BORN_US + 2000 * SECOND + number)
        made.start(branch={"run_id": "p", "step": 500}, run_id="p")
        made.run_id = "p"
        for index in range(10):
            made.row(index, {f"r{number}": index}, BORN_US + 2000 * SECOND + 10 + index)
        store.ingest([made.whole()])
    rows = [row for some in store.scan("p", "p", keys=None, start=501, end=None, stream="default") for row in some]
    assert [row["_step"] for row in rows] == list(range(501, 511))
    assert all("r2" in row and "r3" in row for row in rows)


def test_what_a_fork_shows_outlives_its_parent(store: EmbeddedStore) -> None:
    for made in MADE:
        store.ingest([made.whole()])
    points = store.stats()["hot_points"]
    assert store.delete_run("p", "p") and store.delete_run("p", "c")
    assert store.run("p", "p") is None and store.run("p", "c") is None and not store.delete_run("p", "p")
    store.compact()
    check(store, {"g": GRANDCHILDS})
    assert store.stats()["part_points"] == points
    assert store.delete_run("p", "g")
    store.compact()
    assert store.stats()["part_points"] == 0, "with the last fork everything goes"
    store.ingest([attempt(8, "p", 0, 5).whole()])
    assert values(store, "p") == list(range(80_000, 80_005)), "the name is free again"


def test_runs_that_say_that_they_are_forks_of_each_other_end_somewhere(store: EmbeddedStore) -> None:
    one, other = attempt(1, "x", 11, 20, at=("y", 10)), attempt(2, "y", 11, 20, at=("x", 10))
    store.ingest([one.whole()])
    store.ingest([other.whole()])
    assert values(store, "x") == list(range(10_011, 10_020)) and values(store, "y") == list(range(20_011, 20_020))

"""A chart from rollups says what its points say, whatever the window, the attempts and the moments of compaction."""

import math
import random
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.ports import ChartQuery, SampledSeries
from trackd_daemon.store import EmbeddedStore, charts, rollup_reads, rollups
from trackd_daemon.store.order import order_key
from trackd_daemon.store.series import Columns, Snapshot
from trackd_proto import records

RUN = ("p", "r")


@dataclass
class History:
    """What was logged under the key "v", as shown: (step, order key, value)."""

    scripts: list[Script] = field(default_factory=list)
    points: list[tuple[int, bytes, float]] = field(default_factory=list)


def value(rng: random.Random) -> float | int:
    special = rng.random()
    if special < 0.01:
        return rng.choice((math.nan, math.inf, -math.inf))
    return rng.randrange(-3, 3) if special < 0.1 else rng.gauss(0, 1)


def make(rng: random.Random) -> History:
    """One to three attempts; in each a writer of ordinals or explicit steps and sometimes a second one beside it."""
    made = History()
    top = -1
    for attempt in range(rng.randint(1, 3)):
        start_us, base = BORN_US + attempt * 1_000_000_000, top + 1
        before, made.points = made.points, []
        for second in range(rng.choice((1, 1, 2))):
            script = Script(writer_id(attempt * 2 + second), f"a{attempt}", start_us, "fork" if second else "main")
            script.start()
            is_ordinal = rng.random() < 0.6
            stride = rng.choice((1, 1, 3, 40))
            begin = 0 if is_ordinal else rng.choice((base, max(0, base - 2000), rng.randrange(-5000, 5000)))
            for n in range(rng.choice((300, 2500, 4000))):
                x = n if is_ordinal else begin + n * stride - (rng.randrange(5) * stride if rng.random() < 0.2 else 0)
                # The clock may stand still, where the number of the record decides, and goes back at times.
                time_us = start_us + (n // 3) * 1000 - (10_000 if rng.random() < 0.1 else 0)
                v = value(rng)
                script.row(x, {"v": v}, time_us, records.ROW_ORDINAL if is_ordinal else records.ROW)
                shown = x + base if is_ordinal else x
                order = order_key(start_us, time_us, script.writer_id, len(script.written))
                made.points.append((shown, order, float(v)))
            made.scripts.append(script)
        first, top = min(p[0] for p in made.points), max(p[0] for p in made.points)
        made.points += [p for p in before if p[0] < first]  # the rest is superseded
        top = max(top, *(p[0] for p in made.points))
    made.points.sort(key=lambda p: p[:2])
    return made


def feed(store: EmbeddedStore, made: History, rng: random.Random, compactions: float) -> None:
    """Everything in random order of writers, so that parts overlap."""
    at = {script.writer_id: 1 for script in made.scripts}
    left = list(made.scripts)
    while left:
        script = rng.choice(left)
        batch = script.batch(at[script.writer_id], rng.choice((50, 400, 1500)))
        store.ingest([batch])
        at[script.writer_id] = batch.next_seq
        if batch.next_seq > len(script.written):
            left.remove(script)
        if rng.random() < compactions:
            store.compact()


def check(series: SampledSeries, points: list[tuple[int, bytes, float]], buckets: int) -> None:
    """Each bucket is the next `count` points, in order; nothing is left out; none is much wider than asked."""
    assert series.total == series.count.sum() == len(points)
    assert len(series.x) <= buckets + 2
    after = 0
    for i, count in enumerate(series.count.tolist()):
        some, after = points[after : after + count], after + count
        assert after == len(points) or points[after][0] > some[-1][0], "a step is in two buckets"
        finite = [(step, v) for step, _, v in some if math.isfinite(v)]
        assert series.x[i] == some[-1][0]
        np.testing.assert_equal(series.last[i], some[-1][2])
        flags = (1, math.isnan), (2, lambda v: v == math.inf), (4, lambda v: v == -math.inf)
        assert series.flags[i] == sum(flag for flag, test in flags if any(test(v) for _, _, v in some))
        if not finite:
            assert np.isnan([series.min[i], series.max[i], series.mean[i], series.min_x[i], series.max_x[i]]).all()
            continue
        low, high = min(v for _, v in finite), max(v for _, v in finite)
        assert (series.min[i], series.max[i]) == (low, high)
        assert series.min_x[i] == next(step for step, v in finite if v == low)
        assert series.max_x[i] == next(step for step, v in finite if v == high)
        assert series.mean[i] == pytest.approx(math.fsum(v for _, v in finite) / len(finite), rel=1e-9, abs=1e-9)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollups already for small series."""
    monkeypatch.setattr(charts, "LONG", 1)
    monkeypatch.setattr(rollups, "MIN_POINTS", 100)
    monkeypatch.setattr(rollups, "CHUNK_POINTS", 700)
    monkeypatch.setattr(rollup_reads, "CHUNK_POINTS", 300)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(12))
def test_rollups_say_what_points_say(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    made = make(rng)
    store = EmbeddedStore.open(tmp_path / "store")
    hot = EmbeddedStore.open(tmp_path / "hot")
    try:
        feed(store, made, rng, 0.3)
        feed(hot, made, rng, 0.0)
        if rng.random() < 0.5:
            store.compact()
        low, high = made.points[0][0], made.points[-1][0]
        for _ in range(25):
            buckets = rng.choice((1, 2, 7, 20, 60))
            a, b = sorted((rng.uniform(low - 10, high + 10), rng.uniform(low - 10, high + 10)))
            start, end = rng.choice(((None, None), (a, None), (None, b), (a, b)))
            query = ChartQuery([RUN], ["v"], buckets, start=start, end=end)
            inside = [p for p in made.points if (start is None or p[0] >= start) and (end is None or p[0] <= end)]
            found, plain = store.chart(query), hot.chart(query)
            assert len(found) == len(plain) == (1 if inside else 0)
            if inside:
                check(found[0], inside, buckets)
                assert found[0].x.tolist() == plain[0].x.tolist(), "the answer tells what is compacted"
    finally:
        store.close()
        hot.close()


def same(one: SampledSeries, other: SampledSeries) -> None:
    """Equal but for the last digits of the mean."""
    for f in fields(SampledSeries):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if f.name == "mean":
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        else:
            np.testing.assert_equal(a, b)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_over_time_chunks_say_what_all_points_say(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    made = make(rng)
    store = EmbeddedStore.open(tmp_path / "store")
    try:
        feed(store, made, rng, 0.3)
        for axis, origin in (("_relative", 0.0), ("_timestamp", BORN_US / 1e6)):
            for start, end in ((None, None), (0.1, 2000.5), (0.5, None)):
                window = [None if edge is None else edge + origin for edge in (start, end)]
                query = ChartQuery([RUN], ["v"], rng.choice((3, 50)), axis, start=window[0], end=window[1])
                (at_once,) = store.chart(query)
                with monkeypatch.context() as patch:
                    patch.setattr(charts, "HELD_POINTS", 10)
                    (chunked,) = store.chart(query)
                same(chunked, at_once)
    finally:
        store.close()


def logged(number: int, run_id: str, count: int, spike: int) -> Script:
    script = Script(writer_id(number), f"a-{run_id}", BORN_US, run_id=run_id).start()
    for n in range(count):
        script.row(n, {"v": 99.0 if n == spike else math.sin(n)}, BORN_US + n)
    return script


@pytest.mark.usefixtures("small")
def test_rollups_go_where_their_points_go(tmp_path: Path) -> None:
    store = EmbeddedStore.open(tmp_path / "store")
    try:
        for number in range(8):
            store.ingest([logged(number, f"r{number}", 1500, 777).whole()])
            store.compact()
        files = sorted(p.name for p in (tmp_path / "store" / "series").glob("part-*"))
        assert len([f for f in files if f.endswith(".r.parquet")]) < 8, "small parts are merged, and their rollups"
        store.delete_run("p", "r3")
        store.compact()
        for number in range(8):
            found = store.chart(ChartQuery([("p", f"r{number}")], ["v"], 3))
            assert [(s.total, s.max.max(), s.max_x[s.max.argmax()]) for s in found] == (
                [] if number == 3 else [(1500, 99.0, 777.0)]
            )
        store.delete_project("p")
        store.compact()
        assert not list((tmp_path / "store" / "series").glob("part-*"))
    finally:
        store.close()


@pytest.mark.usefixtures("small")
def test_a_part_without_rollups_is_read_by_its_points(tmp_path: Path) -> None:
    store = EmbeddedStore.open(tmp_path / "store")
    store.ingest([logged(1, "r", 3000, 5).whole()])
    store.compact()
    before = store.chart(ChartQuery([RUN], ["v"], 4))
    store.close()
    (old,) = (tmp_path / "store" / "series").glob("part-*.r.parquet")
    old.unlink()
    store = EmbeddedStore.open(tmp_path / "store")
    try:
        (after,) = store.chart(ChartQuery([RUN], ["v"], 4))
        assert after.max.tolist() == before[0].max.tolist()
        assert after.count.tolist() == before[0].count.tolist()
    finally:
        store.close()


@pytest.mark.usefixtures("small")
def test_a_long_window_reads_rollups_and_a_short_one_few_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EmbeddedStore.open(tmp_path / "store")
    store.ingest([logged(1, "r", 20_000, 12_345).whole()])
    store.compact()
    read: list[int] = []
    real = Snapshot.fetch

    def counted(self: Snapshot, sql: str) -> Columns:
        columns = real(self, sql)
        read.append(len(next(iter(columns.values()))))
        return columns

    monkeypatch.setattr(Snapshot, "fetch", counted)
    try:
        (whole,) = store.chart(ChartQuery([RUN], ["v"], 20))
        assert (whole.max.max(), sum(read)) == (99.0, -(-20_000 // 64))
        read.clear()
        (cut,) = store.chart(ChartQuery([RUN], ["v"], 20, start=100, end=15_000))
        assert cut.total == 14_901
        assert sum(read) < 14_901 // 64 + 128
        read.clear()
        (near,) = store.chart(ChartQuery([RUN], ["v"], 20, start=12_300, end=12_400))
        assert (near.total, near.max_x[near.max.argmax()], sum(read)) == (101, 12_345, 101)
    finally:
        store.close()

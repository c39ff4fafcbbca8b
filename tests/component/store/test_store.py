"""The store as its ports promise it."""

import math
import sqlite3
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.store_history import BORN_US, VALUES, Script, writer_id
from trackd_daemon.errors import ConflictError, QueryError, StoreError, StoreFullError
from trackd_daemon.model import Batch, RunChange
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore, charts, decode, scans
from trackd_proto import records


def script(number: int, run_id: str = "r", attempt: str = "a", project: str = "p", **start: Any) -> Script:
    made = Script(writer_id(number), f"{attempt}-{run_id}", BORN_US + number, project=project, run_id=run_id)
    return made.start(**start)


def rows(store: EmbeddedStore, run_id: str = "r", project: str = "p", **more: Any) -> list[dict[str, Any]]:
    return [row for some in store.scan(project, run_id, **more) for row in some]


def run(store: EmbeddedStore, run_id: str = "r", project: str = "p") -> dict[str, Any]:
    found = store.run(project, run_id)
    assert found is not None
    return found


def simple(store: EmbeddedStore, number: int, run_id: str, count: int = 3, **start: Any) -> Script:
    made = script(number, run_id, **start)
    for step in range(count):
        made.row(step, {"loss": 1 / (step + 1)}, BORN_US + 10 + step)
    store.ingest([made.whole()])
    return made


def test_every_value_comes_back_as_it_was_hot_and_compacted(store: EmbeddedStore) -> None:
    made = script(1)
    for step, value in enumerate(VALUES):
        made.row(step, {"k": value}, BORN_US + step)
    store.ingest([made.whole()])
    hot = rows(store)
    store.compact()
    for found in (hot, rows(store)):
        assert len(found) == len(VALUES)
        for value, row in zip(VALUES, found, strict=True):
            expected = decode.plain(value)
            if isinstance(value, dict) and "inner" in value:
                assert (row["k.inner"], row["k.deep.er"]) == (1.5, 2)
            elif isinstance(value, float) and math.isnan(value):
                assert math.isnan(row["k"])
            else:
                assert repr(row["k"]) == repr(expected)
    assert store.stats()["hot_points"] == 0


def test_gap_duplicate_overlap_and_loss(store: EmbeddedStore) -> None:
    made = script(1)
    for step in range(9):
        made.row(step, {"loss": float(step)}, BORN_US + step)
    who = made.writer_id
    assert store.resume([who]) == {who: 1}
    (first,) = store.ingest([made.batch(1, 4), made.batch(6, 2)])
    assert (first.next_seq, first.is_gap) == (5, True)
    (second,) = store.ingest([made.batch(2, 5)])
    assert (second.next_seq, second.is_gap) == (7, False)
    (third,) = store.ingest([Batch(who, "p", "r", 7, 2, b"", "full"), made.batch(9, 2)])
    assert (third.next_seq, store.resume([who])) == (11, {who: 11})
    assert [row["_step"] for row in rows(store)] == [0, 1, 2, 3, 4, 7, 8]
    (writer,) = store.writers("p", "r")
    assert writer["losses"] == [{"first_seq": 7, "count": 2, "reason": "full"}]
    assert (run(store)["lost_records"], writer["next_seq"], writer["records"]) == (2, 11, 8)


def test_an_undecodable_record_is_declared_and_stops_nobody(store: EmbeddedStore) -> None:
    made = script(1)
    made.row(0, {"loss": 1.0}, BORN_US)
    made.written.append(b"\xc1")
    made.row(1, {"loss": 2.0}, BORN_US)
    (outcome,) = store.ingest([made.whole()])
    assert outcome.next_seq == 5
    assert [row["loss"] for row in rows(store)] == [1.0, 2.0]
    assert store.writers("p", "r")[0]["losses"] == [{"first_seq": 3, "count": 1, "reason": "undecodable"}]


def test_a_poisonous_writer_is_kept_raw_and_blocks_no_other(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode.decode

    def fail(data: bytes, first_seq: int, count: int, *, crc32: int) -> decode.Decoded:
        if b"poison" in data:
            raise RuntimeError("a mistake in the decoder")
        return real(data, first_seq, count, crc32=crc32)

    monkeypatch.setattr(decode, "decode", fail)
    bad, good = script(1, "bad"), script(2, "good")
    bad.row(0, {"poison": 1.0}, BORN_US)
    good.row(0, {"loss": 1.0}, BORN_US)
    outcomes = {o.writer_id: o.next_seq for o in store.ingest([bad.whole(), good.whole()])}
    assert outcomes == {bad.writer_id: 3, good.writer_id: 3}
    assert len(rows(store, "good")) == 1
    assert run(store, "bad")["lost_records"] == 2


def test_a_full_series_store_is_an_error_and_the_next_try_completes_it(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script(1)
    made.row(0, {"loss": 1.0}, BORN_US)
    with monkeypatch.context() as patch:
        patch.setattr(store._series, "append", lambda *_: (_ for _ in ()).throw(StoreFullError("full")))
        with pytest.raises(StoreFullError):
            store.ingest([made.whole()])
        assert store.resume([made.writer_id]) == {made.writer_id: 1}
        assert run(store)["rows"] == 1, "reads go on"
    (outcome,) = store.ingest([made.whole()])
    assert outcome.next_seq == 3
    assert len(rows(store)) == 1
    assert (run(store)["rows"], run(store)["version"]) == (1, 2), "the catalog did not count twice"


def test_a_second_attempt_continues_the_steps_and_the_run(store: EmbeddedStore) -> None:
    first, second = script(1, attempt="one"), script(50, attempt="two")
    for made in (first, second):
        for ordinal in range(3):
            made.row(ordinal, {"loss": float(ordinal)}, made.start_us + ordinal)
    first.add(records.EXIT, BORN_US + 20, 0, {"state": "killed", "exit_code": -9, "cause": None})
    store.ingest([second.whole()])
    assert [row["_step"] for row in rows(store)] == [0, 1, 2]
    store.ingest([first.whole()])
    assert [row["_step"] for row in rows(store)] == [0, 1, 2, 3, 4, 5]
    assert [row["_step"] for row in rows(store, start=2, end=4)] == [2, 3]
    assert [row["_step"] for row in rows(store, steps=[5, 0, 9])] == [0, 5]
    assert run(store)["attempts"] == 2
    assert run(store)["last_step"] == 5
    assert store.keys("p", "r")[0]["last_step"] == 5


def test_states(tmp_path: Path) -> None:
    now = [BORN_US]
    store = EmbeddedStore.open(tmp_path / "s", clock=lambda: now[0])
    made = simple(store, 1, "r")
    assert run(store)["state"] == "running"
    now[0] += 61_000_000
    assert run(store)["state"] == "lost contact"
    assert run(store)["cause"] == "nothing has been heard from it for a minute; why is not known"
    store.touch([made.writer_id], now[0])
    assert run(store)["state"] == "running"
    assert store.runs("p", where="state = running")["total"] == 1
    courier = script(2, attempt="a")
    courier.role = "courier"
    courier.written.clear()
    courier.start().add(records.EXIT, now[0] + 5, 0, {"state": "crashed", "exit_code": None, "cause": "signal 11"})
    store.ingest([courier.whole()])
    assert (run(store)["state"], run(store)["cause"]) == ("crashed", "signal 11")
    made.add(records.EXIT, now[0] + 1, 0, {"state": "finished", "exit_code": 0})
    store.ingest([made.whole()])
    assert (run(store)["state"], run(store)["cause"]) == ("finished", None), "the main writer knows better"
    store.close()


@pytest.mark.parametrize("is_courier_first", [False, True])
def test_the_exit_code_that_the_kernel_told_beats_the_one_that_python_assumed(
    store: EmbeddedStore, is_courier_first: bool
) -> None:
    main, courier = script(1, attempt="a"), script(2, attempt="a")
    courier.role = "courier"
    courier.written.clear()
    assumed = {"state": "finished", "exit_code": 0, "cause": None, "is_assumed": True}
    main.add(records.EXIT, BORN_US + 20, 0, assumed)
    courier.start().add(records.EXIT, BORN_US + 10, 0, {"state": "failed", "exit_code": 3, "cause": "exited"})
    for made in (courier, main) if is_courier_first else (main, courier):
        store.ingest([made.whole()])
    assert (run(store)["state"], run(store)["exit_code"]) == ("failed", 3)


def test_the_traceback_is_that_of_the_last_attempt_and_only_of_a_failure(store: EmbeddedStore) -> None:
    first, second = script(1, attempt="one"), script(50, attempt="two")
    failed = {"state": "failed", "exit_code": 1, "cause": "ValueError: x", "traceback": "Traceback: x"}
    first.add(records.EXIT, BORN_US + 20, 0, failed)
    store.ingest([first.whole()])
    assert (run(store)["cause"], run(store)["traceback"]) == ("ValueError: x", "Traceback: x")
    assert store.runs("p")["runs"][0]["traceback"] is None, "too long for a page of runs"
    store.ingest([second.whole()])
    assert run(store)["traceback"] is None, "it runs again"
    second.add(records.EXIT, BORN_US + 90, 0, {"state": "failed", "exit_code": 2, "cause": "exit code 2"})
    store.ingest([second.whole()])
    assert (run(store)["cause"], run(store)["traceback"]) == ("exit code 2", None)


def test_summary_explicit_beats_automatic_and_deletion_hides_what_came_before(store: EmbeddedStore) -> None:
    made = script(1)
    made.add(records.SUMMARY, BORN_US + 1, 0, {"set": {"loss": 42, "best.at": 7}})
    made.row(0, {"loss": 1.0, "acc": 0.5, "gone": 1, "deep": {"er": 2}}, BORN_US + 2)
    made.add(records.SUMMARY, BORN_US + 3, 0, {"del": ["gone"]})
    store.ingest([made.whole()])
    assert run(store)["summary"] == {"loss": 42, "best": {"at": 7}, "acc": 0.5, "deep": {"er": 2}}
    assert store.runs("p", where="summary.loss = 42 and summary.gone = null and summary.deep.er = 2")["total"] == 1
    made.row(1, {"gone": 9}, BORN_US + 4)
    store.ingest([made.whole()])
    assert run(store)["summary"]["gone"] == 9
    assert store.runs("p", where="summary.gone = 9")["total"] == 1


@pytest.fixture
def many(store: EmbeddedStore) -> Iterator[EmbeddedStore]:
    """25 runs whose config says what they are."""
    for n in range(25):
        made = script(n, f"run{n:02}", name=f"name {n}", tags=["even" if n % 2 == 0 else "odd"], created_us=BORN_US + n)
        config = {"lr": n / 10, "deep": {"n": n}, "s": f"s{n}"} | ({"only": True} if n < 5 else {})
        made.add(records.CONFIG, BORN_US, 0, config)
        made.row(0, {"loss": float(25 - n)}, BORN_US)
        store.ingest([made.whole()])
    return store


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("", 25), ("config.lr < 0.5", 5), ("config.lr = 0.5", 1), ("config.deep.n >= 20 or config.lr < 0.2", 7),
        ("tags = even", 13), ("tags != even", 12), ("not tags in (even, odd)", 0), ("config.only = true", 5),
        ("config.only != true", 20), ("not config.only = true", 20), ("config.only = null", 20),
        ("name ~ '^name 1.$'", 10),
        ("run07", 1), ('"NAME 1"', 11), ("summary.loss <= 3 and config.s in (s24, s23, x)", 2), ("id = run03", 1),
        ("group = g and user = u", 25), ("state in (running, 'lost contact')", 25), ("created < 1970-01-02", 0),
        ("config.nothing.here > 1", 0), ("rows = 1", 25), ("config.s < s2", 12),
    ],
)  # fmt: skip
def test_filters(many: EmbeddedStore, where: str, count: int) -> None:
    found = many.runs("p", where=where)
    assert (found["total"], len(found["runs"])) == (count, count)


@pytest.mark.parametrize(
    "sort", ["-created", "created", "config.lr", "-config.lr", "config.only", "-summary.loss", "name"]
)
def test_pages_hold_every_run_once_in_order(many: EmbeddedStore, sort: str) -> None:
    whole = [r["run_id"] for r in many.runs("p", sort=sort)["runs"]]
    paged, cursor = [], ""
    while True:
        page = many.runs("p", sort=sort, limit=4, cursor=cursor)
        paged += [r["run_id"] for r in page["runs"]]
        assert page["total"] == 25
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert paged == whole
    assert sorted(paged) == [f"run{n:02}" for n in range(25)]
    if sort == "config.lr":
        assert paged == sorted(paged)
    if sort == "config.only":
        assert set(paged[:5]) == {f"run{n:02}" for n in range(5)}, "runs without the value come last"


def test_mistakes_in_questions(store: EmbeddedStore) -> None:
    for question in ({"where": "nonsense.x = 1"}, {"sort": "nonsense"}, {"where": "tags < 3"}, {"cursor": "xx"}):
        with pytest.raises(QueryError):
            store.runs("p", **question)


def test_columns(many: EmbeddedStore) -> None:
    found = {c["path"]: (c["kind"], c["type"], c["runs"]) for c in many.columns("p")}
    assert found["config.lr"] == ("config", "number", 25)
    assert found["config.s"] == ("config", "string", 25)
    assert found["config.only"] == ("config", "bool", 5)
    assert found["summary.loss"] == ("summary", "number", 25)


def test_move_rename_and_records_that_come_later(store: EmbeddedStore) -> None:
    made = simple(store, 1, "r")
    assert store.edit_run("p", "r", {"project": "q", "notes": "moved", "tags": ["x"]})
    assert store.rename_project("q", "q2")
    assert store.links([made.writer_id]) == {made.writer_id: ("q2", "r")}
    fork = script(2)
    fork.row(7, {"loss": 5.0}, BORN_US + 99)
    made.row(3, {"loss": 9.0}, BORN_US + 98)
    resumed = script(90, attempt="later")
    resumed.row(0, {"loss": 7.0}, BORN_US + 1000)
    store.ingest([made.whole(), fork.whole(), resumed.whole()])
    assert [row["loss"] for row in rows(store, project="q2")] == [1.0, 0.5, 1 / 3, 9.0, 5.0, 7.0]
    assert [p["name"] for p in store.projects()] == ["q2"]
    assert (run(store, project="q2")["notes"], run(store, project="q2")["attempts"]) == ("moved", 2)
    assert store.run("p", "r") is not None, "the old address leads to it"


def test_a_move_onto_another_run_is_a_conflict_and_changes_nothing(store: EmbeddedStore) -> None:
    simple(store, 1, "r")
    other = script(2, project="q", attempt="other")
    store.ingest([other.whole()])
    with pytest.raises(ConflictError):
        store.edit_run("p", "r", {"project": "q", "name": "new"})
    assert run(store)["name"] != "new"
    with pytest.raises(ConflictError):
        store.rename_project("p", "q")
    assert not store.edit_run("p", "none", {"name": "x"})


def test_a_deleted_run_is_gone_from_disk_and_swallows_what_still_comes(store: EmbeddedStore, tmp_path: Path) -> None:
    made = simple(store, 1, "r")
    simple(store, 2, "other")
    store.compact()
    simple(store, 3, "third")
    assert store.delete_run("p", "r")
    assert not store.delete_run("p", "r")
    made.row(3, {"loss": 1.0}, BORN_US)
    (outcome,) = store.ingest([made.whole()])
    assert outcome.next_seq == 6
    assert store.run("p", "r") is None
    assert rows(store) == []
    store.compact()
    assert store.stats()["part_points"] == 6
    assert len(rows(store, "other")) == len(rows(store, "third")) == 3
    again = simple(store, 9, "r", attempt="new")
    assert run(store)["rows"] == 3
    assert store.delete_project("p")
    assert store.projects() == []
    store.compact()
    assert store.stats()["part_points"] == 0
    assert not list((tmp_path / "store" / "series").glob("part-*"))
    assert store.resume([again.writer_id]) == {again.writer_id: 5}


def test_stop_and_changes(store: EmbeddedStore) -> None:
    heard: list[RunChange] = []
    end = store.subscribe(heard.extend)
    made = simple(store, 1, "r")
    assert [(c.run_id, c.keys, c.last, c.version) for c in heard] == [("r", ["loss"], {"loss": 1 / 3}, 4)]
    assert store.stops([made.writer_id]) == set()
    assert store.request_stop("p", "r")
    assert store.stops([made.writer_id, b"?" * 16]) == {made.writer_id}
    assert heard[-1].version == 5
    end()
    simple(store, 2, "r2")
    assert len(heard) == 2


def test_scan_in_windows_is_the_same_as_at_once(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script(1)
    for n in range(400):
        made.row(n if n % 3 else 10**6 + n, {"a": float(n), "b": n}, BORN_US + n, records.ROW)
        if n % 7 == 0:
            made.row(5, {"a": -float(n)}, BORN_US + n, records.ROW)
    store.ingest([made.whole()])
    at_once = rows(store)
    monkeypatch.setattr(scans, "WINDOW_POINTS", 7)
    monkeypatch.setattr(scans, "ROWS_PER_LIST", 11)
    assert rows(store) == at_once
    assert next(r for r in at_once if r["_step"] == 5)["a"] == -399.0, "of a step logged often, the last counts"
    assert len(at_once) == 400 - 134 + 134


def test_a_chart_joins_another_metric_on_the_row(store: EmbeddedStore) -> None:
    made = script(1)
    for n in range(10):
        made.row(n, {"loss": float(n)} | ({"samples": n * 100} if n != 4 else {}), BORN_US + n * 1_000_000)
    store.ingest([made.whole()])
    (series,) = store.chart(ChartQuery([("p", "r")], ["loss"], 500, "samples"))
    assert series.x.tolist() == [n * 100.0 for n in range(10) if n != 4]
    (relative,) = store.chart(ChartQuery([("p", "r")], ["loss"], 500, "_relative", start=2, end=5))
    assert relative.last.tolist() == [3.0, 4.0, 5.0]


def test_a_chart_of_more_than_is_held_at_once_is_the_same(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("r", "s")):
        made = script(number, name)
        for n in range(2000):
            made.row(n, {"loss": 99.0 if n == 777 else math.sin(n)}, BORN_US + n * 1000)
        store.ingest([made.whole()])
    for axis in ("_step", "_relative", "_timestamp"):
        query = ChartQuery([("p", "r"), ("p", "s")], ["loss"], 50, axis)
        at_once = store.chart(query)
        assert [max(series.max) for series in at_once] == [99.0, 99.0]
        with monkeypatch.context() as patch:
            patch.setattr(charts, "HELD_POINTS", 10)
            assert repr(store.chart(query)) == repr(at_once)


def test_a_chart_over_a_metric_holds_one_line_after_another(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("r", "s", "without")):
        made = script(number, name)
        for n in range(500):
            made.row(n, {"loss": 99.0 if n == 77 else n / 8} | ({"seen": n * 3} if number < 2 else {}), BORN_US + n)
        store.ingest([made.whole()])
    held: list[weakref.ref[Any]] = []
    real = charts._load

    def load(*who: Any) -> Any:
        assert not any(line() is not None for line in held), "another line is held"
        line = real(*who)
        held.append(weakref.ref(line.x))
        return line

    for start, end in ((None, None), (100.0, 700.0), (1e6, None)):
        query = ChartQuery([("p", name) for name in ("r", "s", "without")], ["loss"], 50, "seen", start=start, end=end)
        at_once = store.chart(query)
        assert len(at_once) == (0 if start == 1e6 else 2)
        with monkeypatch.context() as patch:
            patch.setattr(charts, "HELD_POINTS", 10)
            patch.setattr(charts, "_load", load)
            assert repr(store.chart(query)) == repr(at_once)
    assert held


def test_a_chart_of_a_run_that_is_superseded_as_a_whole_is_empty(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple(store, 1, "r", count=50)
    store.ingest([script(2, "r", "again", branch={"run_id": "r", "step": -1}).batch(1, 1)])
    monkeypatch.setattr(charts, "HELD_POINTS", 10)
    for axis in ("_step", "_relative"):
        assert store.chart(ChartQuery([("p", "r")], ["loss"], 50, axis)) == []


def test_reopened_it_is_the_same_and_private(tmp_path: Path) -> None:
    store = EmbeddedStore.open(tmp_path / "s")
    simple(store, 1, "r")
    store.compact()
    made = simple(store, 2, "r2")
    before, name = rows(store), store.store_id()
    store.close()
    store.close()
    (tmp_path / "s" / "series" / "part-99.f.parquet").write_bytes(b"left by a crash")
    again = EmbeddedStore.open(tmp_path / "s")
    assert (rows(again), again.store_id(), again.resume([made.writer_id])) == (before, name, {made.writer_id: 5})
    assert not (tmp_path / "s" / "series" / "part-99.f.parquet").exists()
    for path in (tmp_path / "s", *(tmp_path / "s").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    again.close()


def test_a_newer_store_is_refused_and_not_touched(tmp_path: Path) -> None:
    EmbeddedStore.open(tmp_path / "s").close()
    con = sqlite3.connect(tmp_path / "s" / "catalog.sqlite")
    con.execute("UPDATE info SET value = '999' WHERE name = 'schema_version'")
    con.commit()
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.close()
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match=r"999.*1"):
        EmbeddedStore.open(tmp_path / "s")
    assert {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()} == before


def test_a_run_can_be_deleted_on_a_full_disk_with_what_was_held_back_for_it(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script(1)
    made.row(0, {"loss": 1.0}, BORN_US)
    store.ingest([made.whole()])
    (store.directory / "reserve").write_bytes(b"held back")
    real = store._in_catalog

    def full(work: Any) -> Any:
        if (store.directory / "reserve").exists():
            raise StoreFullError("full")
        return real(work)

    monkeypatch.setattr(store, "_in_catalog", full)
    assert store.delete_run("p", "r")
    assert store.run("p", "r") is None


def test_compaction_on_a_full_disk_takes_the_reserve_and_leaves_no_half_part_behind(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script(1)
    made.row(0, {"loss": 1.0}, BORN_US)
    store.ingest([made.whole()])
    reserve = store.directory / "reserve"
    reserve.write_bytes(b"held back")
    real = store.compactor._write
    failures = 0

    def full(cursor: Any, number: int, *rest: Any) -> Any:
        nonlocal failures
        if reserve.exists() or failures < 2:
            failures += 1
            store._series.part_path(number, "f").write_bytes(b"half")
            raise StoreFullError("full")
        return real(cursor, number, *rest)

    monkeypatch.setattr(store.compactor, "_write", full)
    with pytest.raises(StoreFullError):
        store.compact()
    assert failures == 2, "tried again with the reserve"
    assert not list((store.directory / "series").glob("part-*.f.parquet"))
    store.compact()
    assert len(rows(store)) == 1


@pytest.mark.parametrize("is_kept", [False, True], ids=["in memory", "written"])
def test_a_clock_that_is_set_back_neither_ends_a_run_nor_lets_a_dead_one_live(tmp_path: Path, is_kept: bool) -> None:
    years_us = 3652 * 86_400_000_000
    now = [BORN_US + years_us]
    store = EmbeddedStore.open(tmp_path / "s", clock=lambda: now[0])
    made = simple(store, 1, "r")
    store.touch([made.writer_id], now[0])
    if is_kept:
        store.close()
        store = EmbeddedStore.open(tmp_path / "s", clock=lambda: now[0])
    assert states(store) == {"running"}
    now[0] -= years_us
    assert states(store) == {"lost contact"}, "what was heard in ten years says nothing"
    store.touch([made.writer_id], now[0])
    assert states(store) == {"running"}
    now[0] += 61_000_000
    assert states(store) == {"lost contact"}
    store.close()


def states(store: EmbeddedStore) -> set[str]:
    """The run's state wherever it is told."""
    (project,) = store.projects()
    by_project = "running" if project["live"] else "lost contact"
    (found,) = [name for name in ("running", "lost contact") if store.runs("p", where=f"state = '{name}'")["total"]]
    return {run(store)["state"], store.attempts("p", "r")[-1]["state"], by_project, found}


def test_while_the_catalog_cannot_write_runs_are_listed_and_those_that_live_stay_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [BORN_US]
    store = EmbeddedStore.open(tmp_path / "s", clock=lambda: now[0])
    made = simple(store, 1, "r")

    def full() -> Any:
        raise StoreFullError("full")

    with monkeypatch.context() as patch:
        patch.setattr(store._catalog, "write", full)
        for _ in range(3):
            now[0] += 50_000_000
            store.touch([made.writer_id], now[0])
            assert states(store) == {"running"}
            (listed,) = store.runs("p")["runs"]
            assert listed["state"] == "running" and store.runs("p", where="state = 'lost contact'")["total"] == 0
        now[0] += 61_000_000
        assert states(store) == {"lost contact"}, "what is kept becomes old as well"
        store.touch([made.writer_id], now[0])
    store.close()
    store = EmbeddedStore.open(tmp_path / "s", clock=lambda: now[0])
    assert states(store) == {"running"}, "written as soon as it could be"
    store.close()

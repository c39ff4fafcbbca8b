"""The hot file that DuckDB gave up, or that is closed for a moment: nothing is lost, doubled or refused for good."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.errors import StoreError
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore, compaction
from trackd_daemon.store.series import Columns, Series

GIVEN_UP = "COMMIT succeeded and is durable, but the autocheckpoint failed. The database has been invalidated."


def script(number: int = 1, run_id: str = "r", count: int = 3) -> Script:
    made = Script(writer_id(number), f"a-{run_id}", BORN_US + number, run_id=run_id).start()
    for step in range(count):
        made.row(step, {"loss": float(step)}, BORN_US + step)
    return made


def losses(store: EmbeddedStore, run_id: str = "r") -> list[float]:
    return [row["loss"] for some in store.scan("p", run_id) for row in some]


def points(store: EmbeddedStore, run_id: str = "r") -> int:
    (found,) = store.chart(ChartQuery([("p", run_id)], ["loss"]))
    return found.total


# -- given up and closed, but not open again


def check_recovery(store: EmbeddedStore) -> None:
    """Reads and ingest work again by themselves."""
    made = script()
    assert losses(store) == [0.0, 1.0, 2.0]
    made.row(3, {"loss": 3.0}, BORN_US + 3)
    store.ingest([made.whole()])
    assert losses(store) == [0.0, 1.0, 2.0, 3.0]
    assert (points(store), store.stats()["hot_points"]) == (4, 4)


def test_a_hot_file_that_could_be_closed_but_not_opened_is_opened_later(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ingest([script().whole()])
    series = store._series

    def no_files_left(_: int) -> None:
        raise StoreError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(series, "_attach", no_files_left)
        series._con.execute("DETACH hot1")
        assert not series.repair(StoreError(GIVEN_UP))
        with pytest.raises(StoreError):
            losses(store)
    check_recovery(store)


def test_a_hot_file_is_opened_again_by_ingest_too(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script()
    store.ingest([made.whole()])
    made.row(3, {"loss": 3.0}, BORN_US + 3)
    store._series._con.execute("DETACH hot1")
    with pytest.raises(StoreError):
        store.ingest([made.whole()])
    store.ingest([made.whole()])
    assert losses(store) == [0.0, 1.0, 2.0, 3.0]


def test_a_hot_file_that_a_reader_still_holds_is_opened_when_the_reader_is_done(store: EmbeddedStore) -> None:
    store.ingest([script().whole()])
    series = store._series
    reader = series._con.cursor()
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM hot1.f").fetchall()
    series._con.execute("DETACH hot1")
    assert not series.repair(StoreError(GIVEN_UP)), "DuckDB opens no file twice"
    with pytest.raises(StoreError):
        losses(store)
    reader.close()
    check_recovery(store)


class Refusing:
    """Series._ask, but closing a file complains after it was done."""

    def __init__(self, series: Series) -> None:
        self._real = series._ask

    def __call__(self, sql: str) -> Any:
        found = self._real(sql)
        if sql.startswith("DETACH"):
            raise StoreError("Detached database 'hot1', but CHECKPOINT during DETACH failed")
        return found


def test_a_hot_file_whose_closing_failed_after_it_was_closed_is_opened_again(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ingest([script().whole()])
    series = store._series
    with monkeypatch.context() as patch:
        patch.setattr(series, "_ask", Refusing(series))
        patch.setattr(series, "_is_usable", lambda _: False)
        assert series.repair(StoreError(GIVEN_UP))
    check_recovery(store)


def test_a_retired_hot_file_whose_closing_failed_is_unlinked_and_so_is_the_rest(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = store._series
    store.ingest([script().whole()])
    with series.snapshot() as snap:
        store.compact()
        store.ingest([script(2, "s").whole()])
        store.compact()
        with monkeypatch.context() as patch:
            patch.setattr(series, "_ask", Refusing(series))
            patch.setattr(series, "_retired", [*series._retired, *snap.sources])
    assert not series.hot_path(1).exists()
    assert not series.hot_path(2).exists()
    assert losses(store) == losses(store, "s") == [0.0, 1.0, 2.0]


def test_a_reader_is_not_told_what_could_not_be_unlinked(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ingest([script().whole()])
    store.compact()
    store.ingest([script(2, "s").whole()])
    (old,) = (store.directory / "series").glob("part-*.f.parquet")
    real = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path == old:
            raise OSError("read-only file system")
        real(path, missing_ok)

    with store._series.snapshot():
        assert store.delete_run("p", "r")
        store.compact()
        monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.undo()
    assert old.exists()
    assert not store._series.hot_path(1).exists()
    assert losses(store, "s") == [0.0, 1.0, 2.0]


# -- a commit that stands although it reported a failure


@pytest.mark.parametrize("is_text", [False, True], ids=["compacted", "sealed by the commit itself"])
def test_a_commit_that_stands_after_all_is_not_taken_twice_though_its_file_was_sealed_meanwhile(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, is_text: bool
) -> None:
    made = script()
    series = store._series
    real = series.append

    def fail_behind(found: Mapping[str, Columns], applied: Mapping[int, int]) -> None:
        real(found, applied)
        raise StoreError(GIVEN_UP)

    with monkeypatch.context() as patch:
        patch.setattr(series, "append", fail_behind)
        if is_text:
            patch.setattr(compaction, "SEAL_TEXT_BYTES", 0)
        with pytest.raises(StoreError):
            store.ingest([made.whole()])
    if not is_text:
        store.compact()
    assert series.active == 2
    made.row(3, {"loss": 3.0}, BORN_US + 3)
    (outcome,) = store.ingest([made.whole()])
    assert outcome.next_seq == 6
    assert losses(store) == [0.0, 1.0, 2.0, 3.0]
    assert points(store) == 4, "stored twice, though the row shows it once"
    store.compact()
    assert store.stats()["part_points"] == 4


# -- several threads


def test_no_reader_sees_a_part_beside_the_hot_file_that_it_replaces(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ingest([script().whole()])
    series = store._series
    seen: list[set[tuple[bool, int]]] = []

    class Watched:
        def __init__(self) -> None:
            self._real = series._lock

        def __enter__(self) -> None:
            self._real.__enter__()

        def __exit__(self, *_: object) -> None:
            seen.append(set(series._sources))
            self._real.release()

    monkeypatch.setattr(series, "_lock", Watched())
    store.compact()
    assert {(False, 1), (False, 2)} in seen
    assert not any((False, 1) in sources and any(is_part for is_part, _ in sources) for sources in seen)


def test_questions_of_several_threads_to_the_hot_file_get_their_answers(store: EmbeddedStore) -> None:
    store.ingest([script().whole()])
    series = store._series
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(300):
            try:
                marks, count = series.applied(1), series.count_hot(1)
            except Exception as error:
                wrong.append(error)
            else:
                if (marks, count) != ({1: 5}, 3):
                    wrong.append((marks, count))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]

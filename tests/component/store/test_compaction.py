"""What compaction does with long texts, when something fails on the way, and when it is asked while it is at work."""

import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.store import EmbeddedStore, compaction
from trackd_proto import records
from trackd_proto.limits import KIB, MIB

TEXT_ROWS = 500
TEXT_CHARS = 200_000
PEAK_BYTES = 280 * MIB


def script(number: int, run_id: str) -> Script:
    return Script(writer_id(number), f"a-{run_id}", BORN_US + number, run_id=run_id).start()


def rows(store: EmbeddedStore, run_id: str, **more: Any) -> list[dict[str, Any]]:
    return [row for some in store.scan("p", run_id, **more) for row in some]


def log_one(store: EmbeddedStore, number: int, run_id: str, value: Any = 1.0) -> None:
    made = script(number, run_id)
    made.row(0, {"k": value}, BORN_US)
    store.ingest([made.whole()])


def parts(store: EmbeddedStore, kind: str = "*") -> list[Path]:
    return sorted((store.directory / "series").glob(f"part-*.{kind}.parquet"))


def wide_bytes(path: Path) -> int:
    with duckdb.connect() as con:
        sql = f"SELECT ifnull(sum(octet_length(v)) FILTER (octet_length(v) > 2048), 0) FROM read_parquet('{path}')"
        return int(con.execute(sql).fetchall()[0][0])


def wait_until_idle(store: EmbeddedStore) -> None:
    thread = store.compactor._thread
    if thread is not None:
        thread.join(30)
        assert not thread.is_alive()


# -- long texts


@pytest.mark.timeout(240)
def test_more_long_text_than_memory_is_compacted_and_read_and_so_is_its_neighbour(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert child.returncode == 0, child.stdout + child.stderr
    assert int(child.stdout.split()[-1]) * KIB < PEAK_BYTES, "peak of memory"


def long_texts(directory: Path) -> None:
    """A run with a hundred megabytes of text that cannot be compressed much, and one like any other."""
    rng = random.Random(1)
    store = EmbeddedStore.open(directory)
    long, short = script(1, "long"), script(2, "short")
    sums = []
    for step in range(TEXT_ROWS):
        text = rng.randbytes(TEXT_CHARS // 2).hex()
        sums.append(zlib.crc32(text.encode()))
        long.row(step, {"text": text, "loss": step / 2}, BORN_US + step)
        short.row(step, {"loss": float(step), "word": f"w{step}"}, BORN_US + step)
        if step % 10 == 9:
            store.ingest([long.batch(len(long.written) - 9 - (step == 9), 11), short.whole()])
            long.written[1:] = [b""] * (len(long.written) - 1)
    store.compact()
    for path in parts(store, "o"):
        assert wide_bytes(path) <= compaction.PART_WIDE_BYTES
    stats = store.stats()
    assert (stats["part_points"], stats["hot_points"]) == (4 * TEXT_ROWS, 0)
    for first in range(0, TEXT_ROWS, 50):
        found = rows(store, "long", start=first, end=first + 50)
        assert [row["loss"] for row in found] == [step / 2 for step in range(first, first + 50)]
        assert [zlib.crc32(row["text"].encode()) for row in found] == sums[first : first + 50]
    assert [(row["loss"], row["word"]) for row in rows(store, "short")] == [(n, f"w{n}") for n in range(TEXT_ROWS)]
    store.close()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(status["VmHWM"].split()[0])


def test_a_hot_file_is_sealed_by_its_text_although_a_compaction_is_under_way(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SEAL_TEXT_BYTES", 10_000)
    with store.compactor._run_lock:
        log_one(store, 1, "r", "x" * 6000)
        assert store.stats()["hot_points"] == 1
        log_one(store, 2, "s", "x" * 6000)
        assert store.stats()["hot_points"] == 0
        log_one(store, 3, "t", "short")
    wait_until_idle(store)
    assert store.stats()["part_points"] == 2
    assert [len(rows(store, name)[0]["k"]) for name in "rst"] == [6000, 6000, 5]


def test_the_text_of_a_hot_file_is_counted_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EmbeddedStore.open(tmp_path / "s")
    log_one(store, 1, "r", "x" * 6000)
    store.close()
    monkeypatch.setattr(compaction, "SEAL_TEXT_BYTES", 10_000)
    store = EmbeddedStore.open(tmp_path / "s")
    log_one(store, 2, "s", "x" * 6000)
    wait_until_idle(store)
    assert (store.stats()["part_points"], store.stats()["hot_points"]) == (2, 0)
    store.close()


def test_one_commit_with_more_text_than_a_part_may_hold_becomes_several(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "PART_WIDE_BYTES", 20_000)
    made = script(1, "r")
    for step in range(40):
        made.row(step, {"text": f"{step:05}" * 1000, "word": str(step), "loss": step / 2}, BORN_US + step)
    store.ingest([made.whole()])
    hot = rows(store, "r")
    store.compact()
    assert len(hot) == 40
    assert rows(store, "r") == hot
    assert len(parts(store, "o")) >= 10
    assert all(0 < wide_bytes(path) <= 20_000 for path in parts(store, "o"))
    assert len(parts(store, "f")) == len(parts(store, "r")) == 1
    assert store.stats()["part_points"] == 120
    store.delete_run("p", "r")
    store.compact()
    assert not parts(store)


@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "written before there were notes"])
def test_parts_with_long_texts_are_merged_up_to_what_fits_and_short_ones_as_ever(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    monkeypatch.setattr(compaction, "PART_WIDE_BYTES", 40_000)
    if not is_noted:
        monkeypatch.setattr(compaction, "_text_options", lambda *_: "ROW_GROUP_SIZE 2048")
    rng = random.Random(1)
    for number in range(8):
        log_one(store, number + 1, f"long{number}", rng.randbytes(5000).hex())
        store.compact()
    assert all(wide_bytes(path) <= 40_000 for path in parts(store, "o"))
    assert 2 <= len(parts(store, "o")) < 8
    for number in range(8):
        log_one(store, number + 20, f"short{number}", f"word {number}")
        store.compact()
    assert all(wide_bytes(path) <= 40_000 for path in parts(store, "o"))
    assert len(parts(store, "o")) < 10
    assert [len(rows(store, f"long{n}")[0]["k"]) for n in range(8)] == [10_000] * 8
    assert [rows(store, f"short{n}")[0]["k"] for n in range(8)] == [f"word {n}" for n in range(8)]


def test_row_groups_of_text_are_small_and_sorted(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "GROUP_TEXT_BYTES", 1 * MIB)
    made = script(1, "r")
    for step in reversed(range(9000)):
        made.row(step, {"text": f"{step:0200}"}, BORN_US + step, records.ROW)
    for first in range(1, len(made.written) + 1, 3000):
        store.ingest([made.batch(first, 3000)])
    store.compact()
    (path,) = parts(store, "o")
    with duckdb.connect() as con:
        sql = f"SELECT step FROM read_parquet('{path}') ORDER BY file_row_number"
        steps = [row[0] for row in con.execute(sql).fetchall()]
        sql = f"SELECT max(total_uncompressed_size) FROM parquet_metadata('{path}') WHERE path_in_schema = 'v'"
        largest = con.execute(sql).fetchall()[0][0]
    assert steps == sorted(steps)
    assert len(steps) == 9000
    assert largest <= 1.3 * MIB


# -- failures on the way


def test_a_file_that_cannot_be_rewritten_keeps_no_other_from_it(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.compactor._rewrite

    def poisoned(*, hots: Sequence[int], parts: Sequence[int]) -> None:
        if 1 in hots or 1 in parts:
            raise StoreError("out of memory")
        real(hots=hots, parts=parts)

    log_one(store, 1, "poison")
    monkeypatch.setattr(store.compactor, "_rewrite", poisoned)
    with pytest.raises(StoreError, match="out of memory"):
        store.compact()
    for number in range(2, 8):
        log_one(store, number, f"r{number}")
        with pytest.raises(StoreError, match="out of memory"):
            store.compact()
    assert store.stats()["part_points"] == 6
    assert store.delete_run("p", "r2")  # in part 1
    assert store.delete_run("p", "r7")
    with pytest.raises(StoreError, match="out of memory"):
        store.compact()
    assert store.stats()["part_points"] == 5
    monkeypatch.setattr(store.compactor, "_rewrite", real)
    store.compact()
    assert store.stats()["part_points"] == 5
    assert all(len(rows(store, name)) == 1 for name in ("poison", "r3", "r6"))


@contextmanager
def failing_once(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalog finds no space for the next transaction."""
    with monkeypatch.context() as patch:

        @contextmanager
        def full() -> Iterator[Any]:
            raise StoreFullError("full")
            yield

        patch.setattr(store._catalog, "write", full)
        yield


def test_a_seal_that_the_catalog_had_no_space_for_is_done_by_the_next(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_one(store, 1, "r")
    with failing_once(store, monkeypatch), pytest.raises(StoreFullError):
        store.compact()
    log_one(store, 2, "s")
    store.compact()
    assert (store.stats()["part_points"], store.stats()["hot_points"]) == (2, 0)
    log_one(store, 3, "t")
    assert all(len(rows(store, name)) == 1 for name in "rst")


@pytest.mark.parametrize("left", ["a file", "a file and tables", "nothing open"])
def test_what_half_a_seal_left_behind_is_not_in_the_way_of_the_next(store: EmbeddedStore, left: str) -> None:
    log_one(store, 1, "r")
    series = store._series
    if left == "a file":
        series.hot_path(2).write_bytes(b"no database")
        series.hot_path(2).with_name("hot-2.duckdb.wal").write_bytes(b"no log")
    elif left == "a file and tables":
        series._attach(2)
    else:
        series.attach_hot(2, is_active=False)
        series._con.execute("DETACH hot2")
    store.compact()
    log_one(store, 2, "s")
    assert (store.stats()["part_points"], store.stats()["hot_points"]) == (1, 1)
    assert all(len(rows(store, name)) == 1 for name in "rs")


# -- asked while at work


def during(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Run `work` once, when a compaction has just looked what is due."""
    real, looked, may_go_on = store.compactor._due, threading.Event(), threading.Event()

    def slow() -> list[list[int]]:
        found = real()
        looked.set()
        assert may_go_on.wait(30)
        return found

    monkeypatch.setattr(store.compactor, "_due", slow)
    store.compactor.wake()
    assert looked.wait(30)
    work()
    may_go_on.set()


def test_a_run_that_is_deleted_while_compaction_is_at_work_is_given_back_too(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_one(store, 1, "r")
    store.compact()
    assert parts(store)
    during(store, monkeypatch, lambda: store.delete_run("p", "r"))
    wait_until_idle(store)
    assert not parts(store)
    log_one(store, 2, "s")
    store.compactor.wake()
    wait_until_idle(store)
    assert len(rows(store, "s")) == 1


def test_a_store_that_is_closed_while_asked_again_ends_at_once(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = threading.Thread(target=store.compactor.stop)

    def ask_and_close() -> None:
        store.compactor.wake()
        closing.start()

    during(store, monkeypatch, ask_and_close)
    closing.join(30)
    assert not closing.is_alive()
    store.compactor.wake()
    assert store.compactor._thread is None


if __name__ == "__main__":
    long_texts(Path(sys.argv[1]))


def test_what_is_to_happen_after_a_compaction_in_the_background_does(tmp_path: Path) -> None:
    done = threading.Event()
    with closing(EmbeddedStore.open(tmp_path / "store", on_compacted=done.set)) as store:
        log_one(store, 1, "r")
        assert not done.is_set()
        store.compactor.wake()
        assert done.wait(30)

"""Catalog and series are committed one after the other; who reads never sees the one ahead of the other."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.errors import StoreError
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore
from trackd_daemon.store.series import Columns


def script(count: int) -> Script:
    made = Script(writer_id(1), "a-r", BORN_US, run_id="r").start()
    for step in range(count):
        made.row(step, {"loss": float(step)}, BORN_US + step)
    return made


def test_what_the_catalog_says_of_a_run_its_points_show(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    append = store._series.append

    def read() -> None:
        run = store.run("p", "r")
        found["last step"] = run and run["last_step"]
        found["scan"] = [row["loss"] for some in store.scan("p", "r") for row in some]
        found["chart"] = [series.total for series in store.chart(ChartQuery([("p", "r")], ["loss"]))]

    reader = threading.Thread(target=read)

    def slow_append(points: Mapping[str, Columns], applied: Mapping[int, int]) -> None:
        reader.start()
        reader.join(0.5)  # it would be done by now if it did not wait
        append(points, applied)

    monkeypatch.setattr(store._series, "append", slow_append)
    store.ingest([script(3).whole()])
    reader.join(30)
    assert found == {"last step": 2, "scan": [0.0, 1.0, 2.0], "chart": [3]}


def test_a_failed_append_holds_up_no_reader(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script(3)
    store.ingest([made.whole()])
    made.row(3, {"loss": 3.0}, BORN_US + 3)

    def fail(points: Mapping[str, Columns], applied: Mapping[int, int]) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store._series, "append", fail)
        with pytest.raises(StoreError, match="the disk is gone"):
            store.ingest([made.whole()])
        began_s = time.monotonic()
        assert [row["loss"] for some in store.scan("p", "r") for row in some] == [0.0, 1.0, 2.0]
        assert time.monotonic() - began_s < 5
    store.ingest([made.whole()])
    assert [row["loss"] for some in store.scan("p", "r") for row in some] == [0.0, 1.0, 2.0, 3.0]

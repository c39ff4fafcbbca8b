"""The live stream: merged, bounded, and ended with the server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.fake_store import FakeStore
from trackd_daemon.http import events
from trackd_daemon.http.routes.events import event, payload
from trackd_daemon.model import RunChange


def change(version: int = 1, run: str = "r1", **fields: Any) -> RunChange:
    return RunChange("p", run, version, **fields)


def test_merging_keeps_the_newest_of_everything() -> None:
    merged = events.merge(
        change(1, keys=("a", "b"), last={"a": 1, "b": 1}, fields=("created",)),
        change(2, keys=("b", "c"), last={"b": 2}, fields=("state", "created")),
    )
    assert merged == change(
        2, keys=("a", "b", "c"), last={"a": 1, "b": 2}, fields=("created", "state"), has_more_keys=False
    )


def test_merging_is_bounded() -> None:
    total = change(0)
    for i in range(50):
        names = [f"k{j}" for j in range(i * 100, i * 100 + 100)]
        total = events.merge(total, change(i, keys=names, last=dict.fromkeys(names, i)))
    assert total.has_more_keys and total.keys == ()
    assert len(total.last) == events.MAX_NAMES and total.last["k4999"] == 49


@pytest.fixture
async def broker(store: FakeStore) -> AsyncIterator[events.Broker]:
    made = events.Broker(store)
    made.open()
    yield made
    made.close()
    assert store.listeners == []


async def tell(store: FakeStore, *changes: RunChange) -> None:
    """From another thread, as ingest does."""
    await asyncio.to_thread(store.tell, *changes)


async def test_a_watcher_hears_of_its_run_only(store: FakeStore, broker: events.Broker) -> None:
    one, project, all_runs, other = (
        broker.watch("p", "r1"), broker.watch("p", None), broker.watch(None, None), broker.watch("q", None)
    )  # fmt: skip
    await tell(store, change(1, "r1"), change(1, "r2"))
    assert [c.run_id for c in await anext(one.changes())] == ["r1"]
    assert [c.run_id for c in await anext(project.changes())] == ["r1", "r2"]
    assert [c.run_id for c in await anext(all_runs.changes())] == ["r1", "r2"]
    broker.close()
    assert [c async for c in other.changes()] == []


async def test_a_slow_reader_gets_one_merged_change_per_run(store: FakeStore, broker: events.Broker) -> None:
    watcher = broker.watch(None, None)
    stream = watcher.changes()
    for version in range(2_000):
        await tell(store, change(version, keys=(f"k{version % 3}",), last={"k": version}))
    (merged,) = await anext(stream)
    while merged.version < 1_999:  # the loop may have delivered in several portions
        (merged,) = await anext(stream)
    assert merged.last == {"k": 1_999}


async def test_changes_of_a_run_are_a_quarter_second_apart(store: FakeStore, broker: events.Broker) -> None:
    watcher = broker.watch("p", "r1")
    stream = watcher.changes()
    await tell(store, change(1))
    await anext(stream)
    start = asyncio.get_running_loop().time()
    await tell(store, change(2))
    await tell(store, change(3))
    (merged,) = await anext(stream)
    assert merged.version == 3
    assert asyncio.get_running_loop().time() - start >= events.PERIOD_S * 0.9


async def test_silence_is_broken_by_a_comment(broker: events.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)
    assert await anext(broker.watch(None, None).changes()) == []


async def test_nobody_watching_costs_nothing(store: FakeStore, broker: events.Broker) -> None:
    watcher = broker.watch(None, None)
    broker.leave(watcher)
    await tell(store, change(1))
    assert broker.watchers == 0 and broker._pending == {}


def test_an_event_is_text() -> None:
    text = event("change", payload(change(5, last={"x": float("nan")}, keys=("x",)))).decode()
    head, data, end, rest = text.split("\n")
    assert head == "event: change" and end == rest == ""
    assert json.loads(data.removeprefix("data: ")) == {
        "project": "p", "run_id": "r1", "version": 5, "keys": ["x"], "has_more_keys": False, "last": {"x": "NaN"},
        "fields": [],
    }  # fmt: skip

"""A scan holds a bounded number of values, whatever is in a row."""

from typing import Any

import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.store import EmbeddedStore, scans
from trackd_proto import records

Rows = list[dict[str, Any]]
MOST = 1_000


def lists(store: EmbeddedStore, **more: Any) -> list[Rows]:
    return list(store.scan("p", "r", **more))


def joined(some: list[Rows]) -> Rows:
    return [row for rows in some for row in rows]


def filled(store: EmbeddedStore, bodies: list[dict[str, Any]], *, is_compacted: bool) -> None:
    made = Script(writer_id(1), "a", BORN_US).start()
    for step, body in enumerate(bodies):
        made.row(step, body, BORN_US + step, records.ROW)
    store.ingest([made.whole()])
    if is_compacted:
        store.compact()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "WINDOW_POINTS", MOST)


@pytest.mark.parametrize("is_compacted", [False, True], ids=["hot", "compacted"])
@pytest.mark.parametrize("is_asked", [False, True], ids=["every step", "steps asked for"])
def test_of_wide_rows_few_are_held(store: EmbeddedStore, is_compacted: bool, is_asked: bool) -> None:
    bodies = [{f"k{key}": step + key / 8 for key in range(300)} for step in range(40)]
    filled(store, bodies, is_compacted=is_compacted)
    found = lists(store, steps=range(1, 40, 2)) if is_asked else lists(store)
    assert [row["k299"] for row in joined(found)] == [body["k299"] for body in (bodies[1::2] if is_asked else bodies)]
    assert max(len(rows) for rows in found) == MOST // 300, "as many as the limit allows, and no more"


@pytest.mark.parametrize("is_compacted", [False, True], ids=["hot", "compacted"])
@pytest.mark.parametrize("is_asked", [False, True], ids=["every step", "steps asked for"])
def test_of_long_texts_few_are_held(store: EmbeddedStore, is_compacted: bool, is_asked: bool) -> None:
    texts = [f"{step:04}" + "x" * 20_000 for step in range(60)]
    filled(store, [{"text": text, "loss": 0.5} for text in texts], is_compacted=is_compacted)
    found = lists(store, steps=range(60)) if is_asked else lists(store)
    assert [row["text"] for row in joined(found)] == texts
    assert 5 <= max(len(rows) for rows in found) <= 10, "20 kB weigh as much as a hundred numbers"


def test_of_many_keys_that_are_rarely_logged_many_steps_are_read_at_once(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, [{f"k{step}": 1.0} for step in range(1_500)], is_compacted=True)
    assert [len(rows) for rows in lists(store, steps=range(1_500))] == [1_000, 500]


def test_a_list_has_no_more_rows_than_before(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "WINDOW_POINTS", 50_000)
    filled(store, [{"loss": float(step)} for step in range(25_000)], is_compacted=False)
    found = lists(store)
    assert max(len(rows) for rows in found) == scans.ROWS_PER_LIST
    assert [row["_step"] for row in joined(found)] == list(range(25_000))

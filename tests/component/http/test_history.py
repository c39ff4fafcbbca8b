"""What `history` answers of runs that are unusual: forks, very wide ones, long texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.fake_store import BASE, COOKIE, FakeStore
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.http.app import create_app
from trackd_daemon.http.auth import Auth
from trackd_daemon.http.hub import HubInfo
from trackd_daemon.http.routes import history
from trackd_daemon.store import EmbeddedStore
from trackd_proto import records
from trackd_proto.auth import http_token

Rows = list[dict[str, Any]]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore.open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def real(embedded: EmbeddedStore, auth: Auth, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a hub with a real store."""
    info = HubInfo(version="1", role="hub", started_us=5, url=lambda: BASE, static=tmp_path / "none")
    app = create_app(embedded, auth, info)
    with TestClient(app, base_url=BASE, headers={"Authorization": f"Bearer {http_token(COOKIE)}"}) as client:
        yield client


def sampled(api: TestClient, run: str, **asked: Any) -> Rows:
    answer = api.get(f"/api/v1/runs/p/{run}/history", params=asked)
    assert answer.status_code == 200
    found: Rows = answer.json()["rows"]
    return found


def young_fork(store: EmbeddedStore, bodies: list[dict[str, Any]], step: int) -> None:
    """The run "fork" with ten rows of its own, behind `step` of a run with these rows."""
    parent = Script(writer_id(1), "a", BORN_US, run_id="parent").start()
    for n, body in enumerate(bodies):
        parent.row(n, body, BORN_US + n, records.ROW)
    fork = Script(writer_id(2), "b", BORN_US + 10**9, run_id="fork")
    fork.start(branch={"run_id": "parent", "step": step})
    for n in range(10):
        fork.row(n, bodies[0], BORN_US + 10**9 + n)
    store.ingest([parent.whole(), fork.whole()])


def test_a_young_fork_of_a_long_run_is_sampled_as_that_is(embedded: EmbeddedStore, real: TestClient) -> None:
    young_fork(embedded, [{"loss": 99.0 if n == 777 else 1.0 + n / 4096} for n in range(4_000)], 3_900)
    found = sampled(real, "fork", samples=100)
    assert len(found) <= 101
    assert max(row["loss"] for row in found) == 99.0 and found[-1]["_step"] == 3_910
    assert len(sampled(real, "fork", samples=100, keys="loss")) <= 101


def test_a_fork_near_the_begin_of_a_long_run_comes_whole(embedded: EmbeddedStore, real: TestClient) -> None:
    young_fork(embedded, [{"loss": float(n)} if n % 2 else {"text": "x"} for n in range(4_000)], 60)
    assert [row["_step"] for row in sampled(real, "fork", samples=100)] == list(range(71))


def test_a_young_fork_of_many_texts(embedded: EmbeddedStore, real: TestClient) -> None:
    young_fork(embedded, [{f"text{n % 50}": f"w{n}"} for n in range(4_000)], 3_900)
    found = sampled(real, "fork", samples=100)
    assert 50 <= len(found) <= 201
    assert (found[0]["text0"], found[-1]["_step"]) == ("w0", 3_910)


def test_of_many_keys_there_are_fewer_rows(api: TestClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_VALUES", 9_000)
    store.add_run("p", "wide", [{"_step": i, **{f"k{j}": i * j for j in range(300)}} for i in range(400)])
    found = sampled(api, "wide", samples=200)
    assert len(found) <= 31 and len(found[0]) == 301
    assert len(sampled(api, "wide", samples=200, keys=["k1", "k2"])) >= 100, "keys that are not asked for do not count"


def test_of_long_texts_there_are_fewer_rows(api: TestClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_VALUES", 9_000)
    store.add_run("p", "long", [{"_step": i, "text": f"{i:04}" + "x" * 100_000} for i in range(400)])
    found = sampled(api, "long", samples=200)
    assert 10 <= len(found) <= 30
    assert (found[0]["_step"], found[-1]["_step"]) == (0, 399)


def test_texts_that_stand_in_different_rows_are_thinned(api: TestClient, store: FakeStore) -> None:
    store.add_run("p", "mixed", [{"_step": i, f"text{i % 100}": f"w{i}"} for i in range(5_000)])
    found = sampled(api, "mixed", samples=100)
    assert 100 <= len(found) <= 201 and found[-1]["_step"] == 4_999

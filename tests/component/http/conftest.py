from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.fake_store import BASE, COOKIE, FakeStore, sample_rows
from trackd_daemon.http.app import create_app
from trackd_daemon.http.auth import Auth
from trackd_daemon.http.hub import HubInfo
from trackd_proto.auth import http_token


@pytest.fixture
def store() -> FakeStore:
    made = FakeStore()
    made.add_run("p", "r1", sample_rows(3_000), [{"_timestamp": 1000.0 + i, "cpu": float(i % 7)} for i in range(50)])
    made.add_run("p", "r2", sample_rows(10))
    made.add_run("odd/name ü", "a/b", sample_rows(5))
    return made


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    return Auth(COOKIE, tmp_path / "sessions.json")


@pytest.fixture
def app(store: FakeStore, auth: Auth, tmp_path: Path) -> FastAPI:
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>dashboard</title>")
    (static / "assets" / "app-1a2b.js").write_text("1")
    info = HubInfo(version="1", role="hub", started_us=5, url=lambda: BASE, static=static)
    return create_app(store, auth, info)


@pytest.fixture
def nobody(app: FastAPI) -> Iterator[TestClient]:
    """A client without credential."""
    with TestClient(app, base_url=BASE) as client:
        yield client


@pytest.fixture
def api(app: FastAPI) -> Iterator[TestClient]:
    """A client with the bearer token."""
    with TestClient(app, base_url=BASE, headers={"Authorization": f"Bearer {http_token(COOKIE)}"}) as client:
        yield client

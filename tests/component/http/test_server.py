"""The server inside an event loop: ports, streams, stopping; and its client."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_store import COOKIE, FakeStore
from trackd_daemon.http.server import HttpServer
from trackd_daemon.model import RunChange
from trackd_proto.auth import http_token
from trackd_proto.local import hub_client
from trackd_proto.local.hub_client import HubClient

Make = Callable[..., HttpServer]


@pytest.fixture
async def make(store: FakeStore, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[HttpServer] = []

    def build(**options: Any) -> HttpServer:
        server = HttpServer(store, COOKIE, sessions_path=tmp_path / "sessions", port_path=tmp_path / "port", **options)
        made.append(server)
        return server

    yield build
    for server in made:
        await server.stop()


def port_of(server: HttpServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


@contextlib.contextmanager
def taken_port() -> Any:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def test_it_keeps_its_port(make: Make) -> None:
    first = make()
    await first.start()
    port = port_of(first)
    await first.stop()
    second = make()
    await second.start()
    assert port_of(second) == port


async def test_a_taken_port_gives_another_one_and_says_so(make: Make) -> None:
    with taken_port() as port:
        server = make(port=port)
        await server.start()
        assert port_of(server) != port
        client = HubClient(server.url, http_token(COOKIE))
        (warning,) = (await asyncio.to_thread(client.get, "/hub"))["warnings"]
        assert str(port) in warning and str(port_of(server)) in warning


async def test_losing_the_last_port_ends_the_sessions(make: Make, tmp_path: Path) -> None:
    first = make()
    pair = first.auth.exchange(first.auth.issue_ticket())
    assert pair is not None
    with taken_port() as port:
        (tmp_path / "port").write_text(str(port))
        (tmp_path / "port").chmod(0o600)
        second = make()
        assert second.auth.is_session(*pair)
        await second.start()
        assert not second.auth.is_session(*pair)


@pytest.mark.parametrize("content", ["x", "", "80", "99999999"])
async def test_a_damaged_port_file_is_replaced(make: Make, tmp_path: Path, content: str) -> None:
    (tmp_path / "port").write_text(content)
    (tmp_path / "port").chmod(0o600)
    server = make()
    await server.start()
    assert (tmp_path / "port").read_text() == str(port_of(server))


async def test_it_listens_on_loopback_only_and_leaves_signals_alone(make: Make) -> None:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    server = make()
    await server.start()
    await asyncio.to_thread(HubClient(server.url, http_token(COOKIE)).get, "/hub")
    assert {s: signal.getsignal(s) for s in before} == before
    assert server._socket is not None and server._socket.getsockname()[0] == "127.0.0.1"


async def test_answers_do_not_wait_for_acknowledgements(make: Make) -> None:
    """asyncio sets TCP_NODELAY only on sockets that name their protocol; without it an answer takes 40 ms more."""
    server = make()
    await server.start()
    assert server._socket is not None and server._socket.proto == socket.IPPROTO_TCP


async def test_stop_ends_open_streams(make: Make, store: FakeStore) -> None:
    server = make()
    await server.start()
    client = HubClient(server.url, http_token(COOKIE))
    heard: list[bytes] = []
    has_begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        with client.open("/events", {"project": "p"}) as response:
            for part in response.stream(1 << 16):
                heard.append(part)
                loop.call_soon_threadsafe(has_begun.set)

    reader = asyncio.create_task(asyncio.to_thread(listen))
    await asyncio.wait_for(has_begun.wait(), 10)
    assert server.open_pages == 1
    has_begun.clear()
    await asyncio.to_thread(store.tell, RunChange("p", "r1", 8, last={"loss": 0.5}))
    await asyncio.wait_for(has_begun.wait(), 10)
    await server.stop()
    await asyncio.wait_for(reader, 10)
    text = b"".join(heard).decode()
    assert text.startswith("event: hello\n") and '"store_id":"fake-store"' in text and '"version":8' in text
    assert server.open_pages == 0


async def test_stop_is_safe_twice_and_without_start(make: Make) -> None:
    await make().stop()
    server = make()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_reader_that_leaves_closes_its_scan(make: Make, store: FakeStore) -> None:
    store.add_run("p", "long", [{"_step": i, "text": "x" * 1_000} for i in range(50_000)])
    server = make()
    await server.start()
    client = HubClient(server.url, http_token(COOKIE))

    def look() -> dict[str, Any]:
        return next(client.rows("/runs/p/long/scan"))

    assert (await asyncio.to_thread(look))["_step"] == 0
    while store.open_scans:
        await asyncio.to_thread(client.get, "/hub")


async def test_errors_are_typed_and_say_what_to_do(make: Make) -> None:
    server = make()
    await server.start()

    def ask() -> None:
        good, stranger = HubClient(server.url, http_token(COOKIE)), HubClient(server.url, "00")
        with pytest.raises(hub_client.HubAuthError, match="trackd open"):
            stranger.get("/hub")
        with pytest.raises(hub_client.NotFoundError, match="no run 'x'"):
            good.get("/runs/p/x")
        with pytest.raises(hub_client.BadQuestionError, match=r"at character 5"):
            good.get("/projects/p/runs", {"where": "lr <"})
        with pytest.raises(hub_client.BadQuestionError, match="limit"):
            good.get("/projects/p/runs", {"limit": 0})
        with pytest.raises(hub_client.NameTakenError):
            good.patch("/projects/p", {"name": "odd/name ü"})
        with pytest.raises(hub_client.NotFoundError), good.open("/runs/p/x/scan"):
            pass

    await asyncio.to_thread(ask)
    url = server.url
    await server.stop()
    with pytest.raises(hub_client.NoHubError, match="trackd open"):
        await asyncio.to_thread(HubClient(url, "x").post, "/tickets")


async def test_names_with_anything_survive_the_wire(make: Make) -> None:
    server = make()
    await server.start()
    client = HubClient(server.url, http_token(COOKIE))
    found = await asyncio.to_thread(client.get, hub_client.run_path("odd/name ü", "a/b"))
    assert (found["project"], found["run_id"]) == ("odd/name ü", "a/b")

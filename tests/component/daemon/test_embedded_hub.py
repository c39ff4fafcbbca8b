"""The hub inside a daemon: started once, and tried again for as long as it cannot be started."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest
from support import pushing
from support.in_process import running, until
from support.pushing import Writer
from support.serving import free_port
from trackd_daemon import embedded_hub, roles
from trackd_daemon.http.server import HttpServer
from trackd_daemon.ingest.committer import Committer
from trackd_daemon.store import EmbeddedStore
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2


@pytest.fixture
def where(trackd_home: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(embedded_hub, "FIRST_RETRY_S", 0.3)
    return places.instance(trackd_home)


async def status(link: instance.Link) -> ingest_pb2.StatusReply:
    return await link.control.Status(ingest_pb2.StatusRequest())


def open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def take_place(where: Instance) -> None:
    """No store can be opened where a file lies."""
    where.store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    where.store.write_text("in the way")


async def test_a_hub_by_name_with_a_backlog_in_its_log_is_started_once(where: Instance) -> None:
    async with running(where.home, role=roles.AGENT):
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("kept")], 300)
        await link.channel.close()
    async with running(where.home, listen=f"127.0.0.1:{free_port()}") as daemon:
        link = await instance.connect(where)
        await pushing.push(link, [writer], 400, until="committed")
        await link.channel.close()
        assert daemon._status().warnings == []


async def test_a_store_that_cannot_be_opened_at_first_is_opened_later(where: Instance) -> None:
    take_place(where)
    async with running(where.home) as daemon:
        link = await instance.connect(where)
        notices = await pushing.push(link, [writer := Writer("early")], 200)
        await until(lambda: bool(daemon._status().routes), "the route says why nothing goes on")
        said = await status(link)
        (route,) = said.routes
        assert (said.role, said.http_url, route.state, route.lag_records) == ("agent", "", "paused", 200)
        assert any(str(where.store) in warning for warning in said.warnings)
        assert str(where.store) in route.reason
        published = instance.read_published(where)
        assert published is not None
        assert published.role == "agent"

        where.store.unlink()
        notices += await pushing.push(link, [writer], 300, until="committed")
        assert any(str(where.store) in notice.message for notice in notices), "the trainer was told"
        said = await status(link)
        assert (said.role, bool(said.http_url), list(said.warnings)) == ("agent+hub", True, [])
        assert [(r.state, r.reason, r.lag_records) for r in said.routes] == [("embedded", "", 0)]
        published = instance.read_published(where)
        assert published is not None
        assert (published.role, published.http_url) == ("agent+hub", said.http_url)
        ticket = await link.control.Ticket(ingest_pb2.TicketRequest(), timeout=10)
        assert ticket.base_url == said.http_url
        await link.channel.close()
    assert len(asyncio.all_tasks()) == 1, "the route that led nowhere is over"


async def test_nobody_waits_for_more_than_the_first_try(where: Instance) -> None:
    take_place(where)
    async with running(where.home) as daemon:
        assert await asyncio.wait_for(daemon._ticket(), 10) is None


async def test_whoever_is_in_a_hurry_does_not_wait_for_the_next_try(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_hub, "FIRST_RETRY_S", 600.0)
    take_place(where)
    async with running(where.home) as daemon:
        assert await asyncio.wait_for(daemon._ticket(), 10) is None
        where.store.unlink()
        daemon._hurry()
        await until(lambda: daemon._status().role == "agent+hub", "a hub")


async def test_what_a_failed_start_had_opened_is_closed_before_the_next(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of a kind that nobody expects, when everything but the pages is there already."""
    before, starts, stopped = len(asyncio.all_tasks()), [], []
    start, stop, close = HttpServer.start, Committer.stop, EmbeddedStore.close

    async def failing(self: HttpServer) -> None:
        starts.append(self)
        if len(starts) == 1:
            raise RuntimeError("no luck")
        assert stopped == ["committer", "store"]
        await start(self)

    monkeypatch.setattr(HttpServer, "start", failing)
    monkeypatch.setattr(Committer, "stop", lambda self: (stopped.append("committer"), stop(self))[1])
    monkeypatch.setattr(EmbeddedStore, "close", lambda self: (stopped.append("store"), close(self))[1])
    async with running(where.home) as daemon:
        link = await instance.connect(where)
        assert await asyncio.wait_for(daemon._ticket(), 10) is None
        assert list((await status(link)).warnings) == ["RuntimeError: no luck"]
        await pushing.push(link, [Writer("a")], 100, until="committed")
        await link.channel.close()
    assert len(starts) == 2
    assert len(asyncio.all_tasks()) == before


async def test_a_daemon_json_that_cannot_be_written_keeps_no_record_from_the_hub(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, failures = roles.endpoint.publish, []

    def failing(*arguments: object) -> object:
        if arguments[4] and len(failures) < 3:
            failures.append(arguments)
            raise OSError(28, "No space left on device")
        return publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(roles.endpoint, "publish", failing)
    async with running(where.home) as daemon:
        link = await instance.connect(where)
        await pushing.push(link, [Writer("a")], 100, until="committed")
        url = daemon._status().http_url
        await until(lambda: (found := instance.read_published(where)) is not None and found.http_url == url, "the URL")
        assert url
        await link.channel.close()
    assert len(failures) == 3


async def test_libraries_that_are_missing_are_not_looked_for_again(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_hub, "FIRST_RETRY_S", 0.01)
    monkeypatch.setitem(sys.modules, "trackd_daemon.store", None)
    async with running(where.home) as daemon:
        assert await asyncio.wait_for(daemon._ticket(), 10) is None
        monkeypatch.undo()
        await asyncio.sleep(0.3)
        assert daemon._status().role == "agent"
        assert "pip install 'trackd[hub]'" in daemon._status().warnings[0]


def test_a_store_that_cannot_be_opened_leaves_no_file_open(tmp_path: Path) -> None:
    EmbeddedStore.open(tmp_path).close()
    (hot,) = (tmp_path / "series").glob("hot-*.duckdb")
    whole = hot.read_bytes()
    hot.write_bytes(b"x" * len(whole))
    kept = []
    for _ in range(2):
        with pytest.raises(Exception, match="hot") as failure:
            EmbeddedStore.open(tmp_path)
        kept.append(failure.value)  # its traceback holds what was opened
    assert [path for path in open_files() if path.startswith(str(tmp_path))] == []
    hot.write_bytes(whole)
    EmbeddedStore.open(tmp_path).close()

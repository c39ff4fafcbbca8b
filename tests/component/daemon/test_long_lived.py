"""What a daemon that runs for months must not do: stop looking after itself, or remember every writer it has seen."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import psutil
import pytest
from support import pushing
from support.in_process import running, until
from support.pushing import Writer
from trackd_daemon import roles
from trackd_daemon.ingest import forgetting, marks
from trackd_daemon.store import EmbeddedStore
from trackd_daemon.wal import state
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


async def test_an_error_while_it_looks_after_itself_does_not_end_that(
    where: Instance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    is_in_place = roles.endpoint.is_in_place

    def unmeasurable(_store: EmbeddedStore) -> dict[str, int]:
        calls.append("stats")
        raise FileNotFoundError(2, "No such file or directory")

    def unreadable(*arguments: object) -> bool:
        calls.append("place")
        if calls.count("place") < 5:
            raise OSError(24, "Too many open files")
        return is_in_place(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedStore, "stats", unmeasurable)
    monkeypatch.setattr(roles.endpoint, "is_in_place", unreadable)
    monkeypatch.setattr(roles, "_STATS_TICKS", 1)
    with caplog.at_level(logging.ERROR, "trackd"):
        async with running(where.home) as daemon:
            await until(lambda: calls.count("stats") > 3 and calls.count("place") > 5, "it goes on")
            assert daemon._published is not None
            Path(daemon._published.socket).unlink()
            await until(lambda: instance.is_listening(where), "a vanished socket is published again")
    texts = [record.getMessage() for record in caplog.records]
    assert [sum(what in text for text in texts) for what in ("Too many", "No such file")] == [1, 1], "said once each"


async def test_an_error_while_it_looks_after_itself_does_not_keep_it_from_leaving(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def unreadable(*_arguments: object) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(roles.endpoint, "is_in_place", unreadable)
    async with running(where.home, {"idle_exit_s": 1}, is_spawned=True) as daemon:
        monkeypatch.setattr(daemon, "_request_stop", asked.append)
        await until(lambda: bool(asked), "it leaves")


async def test_a_socket_that_cannot_be_announced_is_not_kept_for_each_attempt(
    where: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, failures = roles.endpoint.publish, []

    def failing(*arguments: object) -> object:
        if len(failures) < 4:
            failures.append(arguments)
            raise OSError(28, "No space left on device")
        return publish(*arguments)  # type: ignore[arg-type]

    async with running(where.home) as daemon:
        await daemon._ticket()
        await until(lambda: daemon._published is not None and bool(daemon._published.http_url), "its address")
        monkeypatch.setattr(roles.endpoint, "publish", failing)
        where.published.unlink()
        await until(lambda: instance.is_listening(where), "a new daemon.json")
        assert len(failures) == 4
        held = {c.laddr for c in psutil.Process().net_connections("unix") if c.laddr.startswith(str(where.directory))}
        assert len(held) == 2, "the first one and the one that is announced"


def test_a_store_is_measured_while_its_files_come_and_go(tmp_path: Path) -> None:
    store = EmbeddedStore.open(tmp_path)
    is_over = threading.Event()

    def churn() -> None:
        while not is_over.is_set():
            directory = tmp_path / "series" / "tmp" / "a"
            directory.mkdir()
            for name in "bcdefgh":
                (directory / name).write_bytes(b"x")
            for name in "bcdefgh":
                (directory / name).unlink()
            directory.rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            assert store.stats()["store_bytes"] > 0
    finally:
        is_over.set()
        thread.join()
        store.close()
    size = sum(Path(parent, name).stat().st_size for parent, _, names in os.walk(tmp_path) for name in names)
    store = EmbeddedStore.open(tmp_path)
    assert abs(store.stats()["store_bytes"] - size) < size / 2
    store.close()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day is over at once, for the log too."""
    monkeypatch.setattr(marks, "FORGET_S", 0.0)
    monkeypatch.setattr(forgetting, "EVERY_S", 0.1)
    monkeypatch.setattr(state, "_FORGET_US", 0)


@pytest.mark.usefixtures("forgetful")
async def test_a_writer_that_is_over_is_forgotten_and_may_come_back(where: Instance) -> None:
    """With everything from its first record on: its courier was killed before it heard that all of it is committed."""
    async with running(where.home, segment_bytes=2000) as daemon:
        link = await instance.connect(where)
        writer, other = Writer("back"), Writer("other")
        await pushing.push(link, [writer], 100, until="committed")
        call = link.ingest.Push()
        await call.write(ingest_pb2.PushRequest(live=[writer.writer_id]))
        await until(lambda: writer.writer_id in daemon._sessions.writers(), "a stream")
        await pushing.push(link, [other], 100, until="committed")
        await asyncio.sleep(0.5)
        assert writer.writer_id in daemon._ledger.writers, "a stream speaks for it"
        call.cancel()
        for last in range(200, 1000, 100):  # new segments; the log forgets what stands in none of them
            await pushing.push(link, [other], last, until="committed")
        assert writer.writer_id not in daemon._log_state.writers
        await until(lambda: writer.writer_id not in daemon._ledger.writers, "it is forgotten")
        assert writer.writer_id not in daemon._sessions._notices
        assert daemon._hub.parts is not None
        assert writer.writer_id not in daemon._hub.parts.ingest._committed

        for last in (100, 200):  # at first what the hub has, and nothing new
            call = link.ingest.Push()
            for first in range(1, last + 1, 50):
                await call.write(ingest_pb2.PushRequest(batches=[writer.batch(first, first + 49)]))
            await until(lambda: daemon._ledger.marks(writer.writer_id).committed == last, "committed again")  # noqa: B023
            call.cancel()
        await link.channel.close()
        assert (daemon._pending([]), daemon._ledger.lost_records) == (0, 0)
        held = await asyncio.to_thread(daemon._hub.parts.store.writers, "p", "back")
        assert [(w["records"], w["next_seq"], w["losses"]) for w in held] == [(200, 201, [])]


@pytest.mark.usefixtures("forgetful")
async def test_what_the_log_still_holds_is_not_forgotten(where: Instance) -> None:
    """The records of one that nobody knows would be sent again, and what is missing before them declared lost."""
    async with running(where.home) as daemon:
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("kept")], 100, until="committed")
        await link.channel.close()
        await asyncio.sleep(0.5)
        assert daemon._ledger.writers.keys() == {writer.writer_id}


@pytest.mark.usefixtures("forgetful")
async def test_a_hub_forgets_whoever_has_left_it(where: Instance) -> None:
    async with running(where.home, role=roles.HUB) as daemon:
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("gone")], 100, until="committed")
        assert daemon._hub.parts is not None
        ingest = daemon._hub.parts.ingest
        await until(lambda: not ingest._committed and not daemon._sessions._notices, "nothing is left of it")
        await pushing.push(link, [writer], 200, until="committed")
        await link.channel.close()

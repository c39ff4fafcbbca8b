"""The real daemon: one per directory however many want one, back after any kill, and nothing lost or doubled by it."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import processes, pushing
from support.pushing import Writer
from support.serving import free_port, ready, serving, wait_for
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


def daemon(home: Path) -> psutil.Process:
    (running,) = processes.daemons(home)
    return running


def values(home: Path, run_id: str, project: str = "p") -> list[int]:
    """What the hub of `home` holds of a run, in step order."""
    rows = HubClient.of_settings(Settings(home=str(home))).rows(f"/runs/{project}/{run_id}/scan")
    return [row["value"] for row in rows]


def writers(home: Path, run_id: str, project: str = "p") -> list[dict[str, object]]:
    client = HubClient.of_settings(Settings(home=str(home)))
    found: list[dict[str, object]] = client.get(f"/runs/{project}/{run_id}/writers")["writers"]
    return found


def run_ids(home: Path, project: str = "p") -> list[str]:
    client = HubClient.of_settings(Settings(home=str(home)))
    return [run["run_id"] for run in client.get(f"/projects/{project}/runs")["runs"]]


SPAWN = "import sys; from trackd_proto.local import instance, places; instance.spawn(places.instance(), timeout_s=60)"


def test_of_sixteen_that_want_a_daemon_one_starts_it(where: Instance) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", SPAWN], stderr=subprocess.PIPE) for _ in range(16)]
    errors = [racer.communicate(timeout=110)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 16, errors
    published = instance.read_published(where)
    assert published is not None
    assert published.epoch == 1, "a second daemon owned the directory"
    assert len(processes.daemons(where.home)) == 1


def test_a_process_with_thousands_of_open_files_starts_one(where: Instance) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 2048, "needed to see what select() would refuse"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1500)]
    try:
        assert held[-1] > 1023
        instance.spawn(where)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert processes.daemons(where.home)


def test_a_second_daemon_by_hand_gives_way(where: Instance) -> None:
    instance.spawn(where)
    with serving(where.home, "--role", "agent") as second:
        assert second.wait(20) == 3
    assert asyncio.run(_epoch(where)) == 1


async def _epoch(where: Instance) -> int:
    link = await instance.connect(where)
    await link.channel.close()
    return int(link.reply.epoch)


async def test_kills_while_pushing_lose_and_double_nothing(where: Instance) -> None:
    run = [Writer("killed"), Writer("killed")]
    for target in (200, 700, 1500, 2600):
        link = await instance.reach(where)
        pusher = asyncio.create_task(pushing.push(link, run, target))
        if target != 200:
            await asyncio.sleep(0.005 * (target % 7))
        else:
            await pusher
        daemon(where.home).send_signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            await pusher
        await link.channel.close()
    link = await instance.reach(where)
    await pushing.push(link, run, 3000, until="committed")
    assert link.reply.epoch == 5
    await link.channel.close()
    held = await asyncio.to_thread(writers, where.home, "killed")
    assert [(w["records"], w["next_seq"], w["losses"]) for w in held] == [(3000, 3001, []), (3000, 3001, [])]
    assert await asyncio.to_thread(values, where.home, "killed") == list(range(2, 3001))


async def test_it_is_back_within_two_seconds(where: Instance) -> None:
    link = await instance.reach(where)
    await pushing.push(link, [Writer("a")], 500, until="committed")
    await link.channel.close()
    daemon(where.home).kill()
    started = time.monotonic()
    link = await instance.reach(where)
    await link.channel.close()
    assert time.monotonic() - started < 10, "back at all; the figure is the bench's"


async def test_what_only_the_log_has_reaches_the_hub_at_the_next_start(where: Instance) -> None:
    with serving(where.home, "--role", "agent"):
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("kept")], 400)
        await link.channel.close()
    link = await instance.reach(where)
    reply = await link.control.Flush(ingest_pb2.FlushRequest(timeout_s=30))
    assert (reply.committed, reply.pending_records, reply.reason) == (True, 0, "")
    assert (await pushing.resume(link, [writer]))[writer.writer_id].committed == 400
    await link.channel.close()
    assert await asyncio.to_thread(values, where.home, "kept") == list(range(2, 401))


async def test_a_vanished_socket_and_daemon_json_come_back(where: Instance) -> None:
    link = await instance.reach(where)
    await link.channel.close()
    published = instance.read_published(where)
    assert published is not None
    Path(published.socket).unlink()
    await asyncio.to_thread(wait_for, lambda: ready(where), "a new socket")
    where.published.unlink()
    await asyncio.to_thread(wait_for, lambda: ready(where), "a new daemon.json")
    link = await instance.connect(where)
    assert link.reply.epoch == published.epoch, "the same daemon"
    await pushing.push(link, [Writer("a")], 100, until="committed")
    await link.channel.close()


async def test_two_routes_share_a_daemon_and_never_mix(where: Instance, tmp_path: Path) -> None:
    other = tmp_path / "hub"
    other.mkdir(mode=0o700)
    there = places.instance(other)
    port = free_port()
    cookie = instance.load_cookie(there)
    assert len(cookie) == 32
    with (
        serving(other, "--role", "hub", "--listen", f"127.0.0.1:{port}"),
        serving(where.home, TRACKD_UPSTREAM_COOKIE=str(there.cookie)),
    ):
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        link = await instance.connect(where)
        far, near = Writer("far", route=f"127.0.0.1:{port}"), Writer("near")
        notices = await pushing.push(link, [far, near], 300, until="committed")
        await link.channel.close()
        assert await asyncio.to_thread(values, other, "far") == list(range(2, 301))
        assert await asyncio.to_thread(values, where.home, "near") == list(range(2, 301))
        for home, only in ((other, "far"), (where.home, "near")):
            assert await asyncio.to_thread(run_ids, home) == [only]
        assert all("/p/p/r/" in notice.run_url for notice in notices if notice.run_url)


async def test_a_hub_that_comes_later_gets_everything_once(where: Instance, tmp_path: Path) -> None:
    other = tmp_path / "hub"
    other.mkdir(mode=0o700)
    there, port = places.instance(other), free_port()
    instance.load_cookie(there)
    upstream = f"127.0.0.1:{port}"
    with serving(where.home, TRACKD_UPSTREAM=upstream, TRACKD_UPSTREAM_COOKIE=str(there.cookie)):
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("late", route=upstream)], 1000)
        status = await link.control.Status(ingest_pb2.StatusRequest())
        assert [(r.route, r.lag_records) for r in status.routes] == [(upstream, 1000)]
        for _ in range(3):
            with serving(other, "--role", "hub", "--listen", upstream) as hub:
                await asyncio.to_thread(wait_for, lambda: ready(there), "hub")
                await link.control.Flush(ingest_pb2.FlushRequest(timeout_s=0.3))
                hub.kill()
                hub.wait()
        with serving(other, "--role", "hub", "--listen", upstream):
            await asyncio.to_thread(wait_for, lambda: ready(there), "hub")
            await pushing.push(link, [writer], 1200, until="committed")
            await link.channel.close()
            (held,) = await asyncio.to_thread(writers, other, "late")
            assert (held["records"], held["next_seq"], held["losses"]) == (1200, 1201, [])


async def test_a_daemon_that_is_told_to_end_first_gives_the_hub_what_it_has(where: Instance, tmp_path: Path) -> None:
    """A container's disk goes with it: what is in the log must not stay there while the hub takes it."""
    other = tmp_path / "hub"
    other.mkdir(mode=0o700)
    there, port = places.instance(other), free_port()
    instance.load_cookie(there)
    upstream = f"127.0.0.1:{port}"
    with (
        serving(other, "--role", "hub", "--listen", upstream) as hub,
        serving(where.home, "--role", "agent", TRACKD_UPSTREAM_COOKIE=str(there.cookie)) as agent,
    ):
        await asyncio.to_thread(wait_for, lambda: ready(where) and ready(there), "both")
        link = await instance.connect(where)
        writer = Writer("last", route=upstream)
        await pushing.push(link, [writer], 10, until="committed")
        hub.send_signal(signal.SIGSTOP)
        try:
            await pushing.push(link, [writer], 1000, until="durable")
            status = await link.control.Status(ingest_pb2.StatusRequest())
            assert [r.lag_records for r in status.routes] == [990], "the hub took something while it was stopped"
            await link.channel.close()
            agent.terminate()
            log = where.home / "serve.log"
            await asyncio.to_thread(wait_for, lambda: "stopping" in log.read_text(), "the signal")
        finally:
            hub.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(agent.wait, 30) == 0
        (held,) = await asyncio.to_thread(writers, other, "last")
        assert (held["records"], held["next_seq"]) == (1000, 1001)


@pytest.mark.parametrize("address", ["0.0.0.0:7731", "192.0.2.1:7731", "[::]:7731"])
def test_only_loopback_is_listened_on(trackd_home: Path, address: str) -> None:
    with serving(trackd_home, "--role", "hub", "--listen", address) as process:
        assert process.wait(30) == 1
    said = (trackd_home / "serve.log").read_text()
    assert "TLS and authentication" in said
    assert address in said


async def test_data_of_a_newer_version_is_refused_and_left_alone(where: Instance) -> None:
    link = await instance.reach(where)
    await pushing.push(link, [Writer("a")], 10)
    await link.channel.close()
    running = daemon(where.home)
    running.terminate()
    await asyncio.to_thread(running.wait, 20)
    path = sorted(where.wal.glob("*.wal"))[-1]
    import struct
    import zlib

    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, 8, 42, 42)
    data[20:24] = bytes(4)
    data[20:24] = struct.pack("<I", zlib.crc32(bytes(data[:64])))
    path.write_bytes(bytes(data))
    before = {p: p.read_bytes() for p in where.directory.rglob("*") if p.is_file() and p != where.log}
    with pytest.raises(instance.SpawnError, match=r"format 42.*up to format 1.*update trackd"):
        await instance.reach(where)
    after = {p: p.read_bytes() for p in where.directory.rglob("*") if p.is_file() and p != where.log}
    assert after == before


def test_a_home_too_long_for_a_socket_gets_a_private_directory(trackd_home: Path) -> None:
    home = trackd_home / ("long" * 30)
    where = places.instance(home)
    instance.spawn(where, environ=os.environ | {"TRACKD_HOME": str(home)})
    published = instance.read_published(where)
    assert published is not None
    directory = Path(published.socket).parent
    try:
        assert directory != where.directory
        assert directory.stat().st_mode & 0o777 == 0o700
        assert asyncio.run(_epoch(where)) == 1
    finally:
        process = psutil.Process(published.pid)
        process.terminate()
        process.wait(20)
        directory.rmdir()


async def test_with_a_full_disk_and_a_hub_that_is_up_nothing_is_lost(where: Instance, tmp_path: Path) -> None:
    other = tmp_path / "hub"
    other.mkdir(mode=0o700)
    there, port = places.instance(other), free_port()
    instance.load_cookie(there)
    upstream = f"127.0.0.1:{port}"
    full = {"TRACKD_MIN_FREE_BYTES": str(1 << 60)}  # more than there is: the log may never grow
    with (
        serving(other, "--role", "hub", "--listen", upstream),
        serving(where.home, "--role", "agent", TRACKD_UPSTREAM_COOKIE=str(there.cookie), **full),
    ):
        await asyncio.to_thread(wait_for, lambda: ready(where) and ready(there), "both")
        link = await instance.connect(where)
        run = [Writer("full", route=upstream), Writer("full", route=upstream)]
        await pushing.push(link, run, 2000, until="committed")
        marks = await pushing.resume(link, run)
        assert {(mark.durable, mark.committed) for mark in marks.values()} == {(0, 2000)}
        status = await link.control.Status(ingest_pb2.StatusRequest())
        assert any("free on the disk" in warning for warning in status.warnings)
        await link.channel.close()
        held = await asyncio.to_thread(writers, other, "full")
        assert [(w["records"], w["losses"]) for w in held] == [(2000, [])] * 2


async def test_a_spawned_daemon_leaves_when_nobody_needs_it(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_IDLE_EXIT_S", "3")
    link = await instance.reach(where)
    process = daemon(where.home)
    call = link.ingest.Push()
    await call.write(ingest_pb2.PushRequest(batches=[Writer("a").batch(1, 10)]))
    with pytest.raises(psutil.TimeoutExpired):  # a stream is open
        await asyncio.to_thread(process.wait, 8)
    call.cancel()
    await link.channel.close()
    await asyncio.to_thread(process.wait, 30)
    link = await instance.reach(where)
    assert link.reply.epoch == 2
    await link.channel.close()


async def test_a_hub_that_is_asked_for_by_name_is_there_before_what_waits_for_it_in_the_log(where: Instance) -> None:
    with serving(where.home, "--role", "agent") as agent:
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        link = await instance.connect(where)
        await pushing.push(link, [writer := Writer("kept")], 400)
        await link.channel.close()
        agent.kill()
        agent.wait()
    upstream = f"127.0.0.1:{free_port()}"
    for last in (500, 600):
        with serving(where.home, "--role", "agent+hub", "--listen", upstream) as both:
            await asyncio.to_thread(wait_for, lambda: ready(where) or both.poll() is not None, "agent and hub")
            assert both.poll() is None, (where.home / "serve.log").read_text()
            link = await instance.connect(where)
            await pushing.push(link, [writer], last, until="committed")
            await link.channel.close()
            both.kill()
            both.wait()

"""S2, S4, S7: planted files, secrets that must not leak, and clients that behave badly beside one that does not."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc import aio
from support import processes, pushing
from support.pushing import Writer
from support.serving import ready, serving, wait_for
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

PLACES = ("cookie", "epoch", "daemon.json", "daemon.lock", "spawn.lock", "daemon.log", "port", "wal", "store")


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


def plant(path: Path, kind: str, victim: Path) -> None:
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        os.mkfifo(path)


PLANTED = [
    ("symlink", "daemon.log"), ("FIFO", "daemon.log"), ("hard link", "daemon.log"), ("FIFO", "cookie"),
    ("symlink", "spawn.lock"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), PLANTED)
def test_a_start_follows_no_planted_file_and_says_what_to_do(
    where: Instance, tmp_path: Path, kind: str, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    places.prepare(where)
    plant(where.directory / name, kind, victim)
    began = time.monotonic()
    with pytest.raises(OSError, match=name):
        instance.load_cookie(where)
        instance.spawn(where, timeout_s=20)
    assert time.monotonic() - began < 15
    assert victim.read_text() == "mine"
    assert processes.daemons(where.home) == []


@pytest.mark.parametrize("kind", ["symlink", "FIFO", "hard link"])
def test_a_courier_follows_no_planted_log_and_sends_all_the_same(where: Instance, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    places.prepare(where)
    plant(where.directory / "courier.log", kind, victim)
    program = (
        "import trackd; run = trackd.init(project='p', mode='offline'); run.log({'x': 1}); print(run.flush(True, 30))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "True" in done.stdout
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", PLACES)
def test_no_link_is_followed_wherever_it_is_planted(where: Instance, tmp_path: Path, name: str) -> None:
    """A daemon started by hand: it may refuse or replace, but what the link points to is not touched."""
    if name not in ("epoch", "wal") and "LONG_FORM" not in os.environ:
        pytest.skip("in the long form: each is the start of a daemon")
    victim = tmp_path / "victim"
    places.prepare(where)
    (where.directory / name).symlink_to(victim)
    with serving(where.home) as daemon:
        wait_for(lambda: daemon.poll() is not None or ready(where), "an answer or an end", 60)
    assert not victim.exists(), "created through a planted link"


SWAPPED = """
import os, pathlib, sys
from trackd_proto.local import places
home, planted, checked = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), places.private_directory

def check_and_be_robbed(path):
    checked(path)
    if path.name == "spool" and planted.exists():
        home.rename(planted.with_name("stolen"))
        planted.rename(home)

places.private_directory = check_and_be_robbed
import trackd
run = trackd.init(project="p", mode="offline", settings={"silent": True})
for i in range(100):
    run.log({"x": i})
assert not planted.exists(), "nothing was swapped"
print(*(f"{path}:{path.lstat().st_uid}:{path.lstat().st_mode & 0o777:o}" for path in home.glob("*/**/*")), sep="\\n")
run.finish()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own files as another user")
def test_a_home_swapped_behind_the_check_shows_its_new_owner_nothing(where: Instance, tmp_path: Path) -> None:
    """Where everybody can rename directories: what is written there is private, and what was planted is left alone."""
    victim, planted = tmp_path / "victim", tmp_path / "planted"
    victim.write_text("mine")
    spool = planted / where.directory.name / "spool"
    spool.mkdir(parents=True)
    for name in ("courier.log", "cookie", "epoch", "daemon.json", "spawn.lock", "daemon.lock"):
        (spool.parent / name).symlink_to(victim)
    theirs = {planted, *planted.rglob("*")}
    for path in theirs:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    program = [sys.executable, "-c", SWAPPED, str(where.home), str(planted)]
    done = subprocess.run(program, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    processes.wait_until_alone(where.home)
    assert victim.read_text() == "mine"
    known = {str(where.home / path.relative_to(planted)) for path in theirs}
    found = [line.split(":") for line in done.stdout.splitlines()]
    ours = {path: (owner, mode) for path, owner, mode in found if path not in known and "/trackd-runs" not in path}
    assert any(path.endswith(".head") for path in ours), ours
    assert all(owner == str(os.geteuid()) and mode in ("600", "700") for owner, mode in ours.values()), ours


def test_the_cookie_is_nowhere_but_in_its_file(where: Instance, tmp_path: Path) -> None:
    """S4: not in an argument, an environment, a log, the write-ahead log, the spool or the store."""
    places.prepare(where)
    canary = os.urandom(32)
    places.write_private(where.cookie, canary.hex().encode())
    program = "import trackd; run = trackd.init(project='p'); run.log({'x': 1}); run.finish(wait_s=30); input()"
    trainer = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=os.environ | {"AWS_SECRET_ACCESS_KEY": "canary-of-the-job"},
    )  # fmt: skip
    (daemon,) = _wait_for_daemon(where)
    needles = (canary, canary.hex().encode())
    for process in processes.of_home(where.home):
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert not any(needle in text for needle in needles), (name, process)
    assert b"canary-of-the-job" not in Path(f"/proc/{daemon.pid}/environ").read_bytes()
    said, _ = trainer.communicate(b"\n", timeout=90)
    assert trainer.returncode == 0, said
    seen = 0
    for path in [*where.home.rglob("*"), *tmp_path.rglob("*")]:
        if path.is_file() and path != where.cookie:
            seen += 1
            data = path.read_bytes()
            assert not any(needle in data for needle in (*needles, b"canary-of-the-job")), path
    assert seen > 5
    assert canary.hex().encode() not in said


def _wait_for_daemon(where: Instance) -> list[object]:
    wait_for(lambda: bool(processes.daemons(where.home)), "a daemon", 60)
    return list(processes.daemons(where.home))


async def test_clients_that_behave_badly_disturb_no_other(where: Instance) -> None:
    """S7: floods of headers and streams, half handshakes, and a client that never reads."""
    with serving(where.home):
        await asyncio.to_thread(wait_for, lambda: ready(where), "the daemon", 60)
        published = instance.read_published(where)
        assert published is not None
        half = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for each in half:
            each.connect(published.socket)
            each.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n")  # and never the rest
        bad = await instance.connect(where)
        deaf = bad.ingest.Push()  # asks for an answer a thousand times and reads none
        streams = [bad.ingest.Push() for _ in range(1000)]
        for number in range(1000):
            await asyncio.wait_for(deaf.write(ingest_pb2.PushRequest(batches=[Writer(f"d{number}").batch(5, 6)])), 20)
        options = [("grpc.max_metadata_size", 1 << 24), ("grpc.absolute_max_metadata_size", 1 << 24)]
        async with aio.insecure_channel(f"unix:{published.socket}", options=options) as flood:
            with pytest.raises(aio.AioRpcError) as caught:
                await ingest_pb2_grpc.IngestStub(flood).Hello(
                    ingest_pb2.HelloRequest(), metadata=[("x-flood", "a" * 1_000_000)], timeout=20
                )
            assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        good = await instance.connect(where)
        began = time.monotonic()
        await asyncio.wait_for(pushing.push(good, [Writer("good")], 2000, until="committed"), 30)
        assert time.monotonic() - began < 20
        for call in (*streams, deaf):
            call.cancel()
        await bad.channel.close()
        await good.channel.close()
        for each in half:
            each.close()

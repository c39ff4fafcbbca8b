"""Nobody but the user who runs the daemon gets anything from it, on whichever door they knock."""

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import grpc
import pytest
from grpc import aio
from support import pushing
from support.pushing import Writer
from support.serving import free_port, ready, serving, wait_for
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

METHODS = {
    "Resume": lambda channel, metadata: ingest_pb2_grpc.IngestStub(channel).Resume(
        ingest_pb2.ResumeRequest(), metadata=metadata, timeout=10
    ),
    "Status": lambda channel, metadata: ingest_pb2_grpc.ControlStub(channel).Status(
        ingest_pb2.StatusRequest(), metadata=metadata, timeout=10
    ),
    "Flush": lambda channel, metadata: ingest_pb2_grpc.ControlStub(channel).Flush(
        ingest_pb2.FlushRequest(), metadata=metadata, timeout=10
    ),
    "Drain": lambda channel, metadata: ingest_pb2_grpc.ControlStub(channel).Drain(
        ingest_pb2.DrainRequest(), metadata=metadata, timeout=10
    ),
    "Ticket": lambda channel, metadata: ingest_pb2_grpc.ControlStub(channel).Ticket(
        ingest_pb2.TicketRequest(), metadata=metadata, timeout=10
    ),
}


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


async def assert_refused(target: str, epoch: int) -> None:
    """Every method on `target`, without a proof, with a wrong one, and with one of another incarnation."""
    cookie = os.urandom(32)
    for proof in ("", "0" * 64, instance.client_proof(cookie, epoch)):
        metadata = ((instance.PROOF_KEY, proof),) if proof else ()
        async with aio.insecure_channel(target, options=instance.channel_options()) as channel:
            for name, call in METHODS.items():
                with pytest.raises(aio.AioRpcError) as caught:
                    await call(channel, metadata)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, name
            push = ingest_pb2_grpc.IngestStub(channel).Push
            with pytest.raises(aio.AioRpcError) as caught:
                await push(metadata=metadata, timeout=10).read()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            # A write that crosses the refusal can fail with a code of the client's own: it tells only that it failed.
            with pytest.raises(aio.AioRpcError):
                pushing_on = push(metadata=metadata, timeout=10)
                await pushing_on.write(ingest_pb2.PushRequest(batches=[Writer("x").batch(1, 2)]))
                await pushing_on.read()


async def test_every_method_needs_the_proof_on_the_socket_and_on_tcp(where: Instance) -> None:
    port = free_port()
    with serving(where.home, "--role", "hub", "--listen", f"127.0.0.1:{port}"):
        await asyncio.to_thread(wait_for, lambda: ready(where), "hub")
        published = instance.read_published(where)
        assert published is not None
        await assert_refused(f"unix:{published.socket}", published.epoch)
        await assert_refused(f"127.0.0.1:{port}", published.epoch)
        link = await instance.connect(where)
        assert (await link.control.Status(ingest_pb2.StatusRequest())).writers == 0
        await link.channel.close()


async def test_a_proof_is_good_for_one_incarnation(where: Instance) -> None:
    with serving(where.home, "--role", "agent"):
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        old = await instance.connect(where)
        await old.channel.close()
    with serving(where.home, "--role", "agent"):
        await asyncio.to_thread(wait_for, lambda: ready(where), "agent")
        published = instance.read_published(where)
        assert published is not None
        async with aio.insecure_channel(f"unix:{published.socket}") as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await METHODS["Status"](channel, old.channel.metadata)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_an_impostor_on_the_socket_is_told_nothing(where: Instance) -> None:
    """Something listens where daemon.json says, without the cookie: the client ends before it sends a credential."""
    seen: list[tuple[str, dict[str, str]]] = []

    class Impostor(ingest_pb2_grpc.IngestServicer):
        async def Hello(self, request: ingest_pb2.HelloRequest, context: object) -> ingest_pb2.HelloReply:  # type: ignore[override]
            seen.append(("Hello", dict(context.invocation_metadata())))  # type: ignore[attr-defined]
            return ingest_pb2.HelloReply(protocol=1, proof=instance.daemon_proof(os.urandom(32), request.nonce))

        async def Resume(self, request: ingest_pb2.ResumeRequest, context: object) -> ingest_pb2.ResumeReply:  # type: ignore[override]
            seen.append(("Resume", {}))
            return ingest_pb2.ResumeReply()

    cookie = instance.load_cookie(where)
    server = aio.server()
    ingest_pb2_grpc.add_IngestServicer_to_server(Impostor(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(instance.ImpostorError, match="nothing was sent"):
            await instance.connect_to(f"127.0.0.1:{port}", cookie, client="test")
    finally:
        await server.stop(None)
    assert [name for name, _ in seen] == ["Hello"]
    assert instance.PROOF_KEY not in seen[0][1]
    assert cookie.hex() not in str(seen)


OTHER_USER = textwrap.dedent(
    """
    import os, sys, socket, grpc
    from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc
    socket_path, tcp, *files = sys.argv[1:]
    hello = ingest_pb2.HelloRequest(protocol_min=1, protocol_max=1, nonce=bytes(16))
    # Everything that is loaded on first use must be loaded while we may still read it.
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        try:
            ingest_pb2_grpc.IngestStub(channel).Hello(hello, timeout=0.2)
        except grpc.RpcError:
            pass
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    for path in files:
        try:
            os.stat(path) if os.path.isdir(path) else open(path, "rb").close()
            sys.exit(f"read {path}")
        except PermissionError:
            pass
    with socket.socket(socket.AF_UNIX) as plain:
        try:
            plain.connect(socket_path)
            sys.exit("connected to the socket")
        except PermissionError:
            pass
    with grpc.insecure_channel("unix:" + socket_path) as channel:
        try:
            ingest_pb2_grpc.IngestStub(channel).Hello(hello, timeout=5)
            sys.exit("Hello on the socket")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    with grpc.insecure_channel(tcp) as channel:
        reply = ingest_pb2_grpc.IngestStub(channel).Hello(hello, timeout=5)
        for metadata in ((), (("x-trackd-proof", reply.proof.hex()),)):
            try:
                ingest_pb2_grpc.ControlStub(channel).Status(ingest_pb2.StatusRequest(), metadata=metadata, timeout=5)
                sys.exit("Status over TCP")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    print("refused")
    """
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_can_read_and_reach_nothing(where: Instance) -> None:
    port = free_port()
    old = os.umask(0)  # the daemon must not depend on the umask it was started with
    try:
        with serving(where.home, "--role", "agent+hub", "--listen", f"127.0.0.1:{port}"):
            await asyncio.to_thread(wait_for, lambda: ready(where), "daemon")
            link = await instance.connect(where)
            await pushing.push(link, [Writer("secret")], 50, until="committed")
            await link.channel.close()
            published = instance.read_published(where)
            assert published is not None
            files = [str(path) for path in where.directory.rglob("*") if path.is_file()]
            assert any("/wal/" in name for name in files)
            assert any("/store/" in name for name in files)
            command = [sys.executable, "-c", OTHER_USER, published.socket, f"127.0.0.1:{port}", *files]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
            assert (done.stdout.strip(), done.returncode) == ("refused", 0), done.stderr
            open_to_others = [p for p in where.directory.rglob("*") if p.lstat().st_mode & 0o077 and not p.is_socket()]
            assert open_to_others == []
    finally:
        os.umask(old)


@pytest.mark.parametrize("what", ["directory", "link", "cookie"])
def test_places_that_others_could_use_are_refused(where: Instance, tmp_path: Path, what: str) -> None:
    places.prepare(where)
    instance.load_cookie(where)
    if what == "directory":
        where.directory.chmod(0o750)
    elif what == "link":
        where.directory.rename(tmp_path / "elsewhere")
        where.directory.symlink_to(tmp_path / "elsewhere")
    else:
        where.cookie.chmod(0o644)
    with pytest.raises(places.UnsafePlaceError, match=r"chmod go=|not a directory"):
        asyncio.run(instance.connect(where))

"""S5 and S6: what a few bytes can make a receiver spend. Each probe runs in a process of its own, so that its peak of
memory is its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from backports import zstd
from grpc import aio
from trackd_daemon.ingest import marks
from trackd_daemon.ingest.access import Gate, Greeter
from trackd_daemon.ingest.agent import AgentIngest
from trackd_daemon.ingest.sessions import Sessions
from trackd_proto import limits, wire
from trackd_proto.compress import CompressionError, Compressor, Decompressor
from trackd_proto.local.instance import PROOF_KEY, channel_options, client_proof
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

COOKIE = bytes(32)
_PEAK = """
import resource, sys
from trackd_proto.compress import CompressionError, Decompressor
from trackd_proto.v1 import ingest_pb2
data = open(sys.argv[1], "rb").read()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
Decompressor()
before = peak()
try:
    Decompressor().decompress(data, int(sys.argv[2]))
except CompressionError:
    print(peak() - before)
"""


def _frame(size: int, **parameters: int) -> bytes:
    options = {zstd.CompressionParameter[name]: value for name, value in parameters.items()}
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(size if "content_size_flag" not in parameters else None)
    return compressor.compress(bytes(size)) + compressor.flush()


_SKIPPABLE = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + bytes(8)
_SMALL = Compressor().compress(bytes(1000))
_LYING = _frame(64 * limits.MIB).replace((64 * limits.MIB).to_bytes(4, "little"), (1 << 20).to_bytes(4, "little"), 1)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        pytest.param(_frame(64 * limits.MIB), 1 << 20, id="64 MiB in 2 KB"),
        pytest.param(_frame(64 * limits.MIB), 64 * limits.MIB, id="64 MiB, and it says so"),
        pytest.param(_frame(64 * limits.MIB, content_size_flag=0), 1 << 20, id="of unknown size"),
        pytest.param(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\1\0\0", 1 << 20, id="a window of 2 GiB"),
        pytest.param(_SMALL * 2000, 1000, id="2,000 frames in a row"),
        pytest.param(_SKIPPABLE * 1000 + _SMALL, 1000, id="skippable frames"),
        pytest.param(_LYING, 1 << 20, id="a header that lies"),
    ],
)
def test_a_zstd_bomb_costs_at_most_16_mib(frame: bytes, said: int, tmp_path: Path) -> None:
    with pytest.raises(CompressionError):
        Decompressor().decompress(frame, said)
    path = tmp_path / "frame"
    path.write_bytes(frame)
    done = subprocess.run([sys.executable, "-c", _PEAK, path, str(said)], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 16


def test_four_million_empty_batches_are_refused_before_they_are_parsed() -> None:
    flood = b"\x0a\x00" * (limits.MAX_REQUEST_BYTES // 2)
    with pytest.raises(wire.TooManyEntriesError, match="more than 65536"):
        wire.check_entries(flood)


def test_every_message_that_is_allowed_passes() -> None:
    ids = [b"w" * 16] * limits.MAX_REQUEST_ENTRIES
    wire.check_entries(ingest_pb2.ResumeRequest(writer_ids=ids).SerializeToString())
    wire.check_entries(ingest_pb2.HelloRequest(protocol_min=1, client="c", nonce=b"n" * 16).SerializeToString())
    wire.check_entries(ingest_pb2.FlushRequest(timeout_s=1.5).SerializeToString())
    for garbage in (b"", b"\xff" * 50, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b", b"\x08"):
        wire.check_entries(garbage)


class _Sink:
    def append(self, batches: object) -> None:
        """A log that takes everything."""


async def test_an_agent_refuses_the_flood_and_goes_on(tmp_path: Path) -> None:
    server = aio.server(interceptors=[Gate(COOKIE, 1)], options=channel_options())
    agent = AgentIngest(Greeter(COOKIE, 1, ingest_pb2.ACK_DURABLE), marks.Ledger(), _Sink(), Sessions())
    ingest_pb2_grpc.add_IngestServicer_to_server(agent, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    before = _rss_mib()
    async with aio.insecure_channel(f"unix:{tmp_path}/s", options=channel_options()) as channel:
        proof = ((PROOF_KEY, client_proof(COOKIE, 1)),)
        raw: Any = channel.unary_unary("/trackd.v1.Ingest/Resume", request_serializer=bytes)
        with pytest.raises(aio.AioRpcError) as refused:
            await raw(b"\x0a\x00" * (limits.MAX_REQUEST_BYTES // 2), metadata=proof, timeout=20)
        assert refused.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        push: Any = channel.stream_stream("/trackd.v1.Ingest/Push", request_serializer=bytes)
        call = push(metadata=proof, timeout=20)
        with pytest.raises((aio.AioRpcError, asyncio.InvalidStateError)):
            await call.write(b"\x0a\x00" * (limits.MAX_REQUEST_BYTES // 2))
            await call.done_writing()
            await call.read()
            await call.read()
        stub: Any = ingest_pb2_grpc.IngestStub(channel)
        request = ingest_pb2.ResumeRequest(writer_ids=[b"w" * 16])
        assert len((await stub.Resume(request, metadata=proof, timeout=20)).watermarks) == 1
    await server.stop(None)
    assert _rss_mib() - before <= 64


def _rss_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

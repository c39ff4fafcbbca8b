"""T17: functions that eat any bytes, and a mutator that feeds them. Out may come only errors that callers know.

``python -m support.fuzzing TARGET SECONDS [SEED]`` (see scripts/torture-fuzz) runs one target in this process, so that
the peak of memory is its own.
"""

from __future__ import annotations

import asyncio
import base64
import random
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError
from trackd.courier import sender
from trackd.courier.lanes import SpoolLane
from trackd.courier.session import ServedSession
from trackd_daemon.cli import verify
from trackd_daemon.http import auth
from trackd_daemon.ingest import marks
from trackd_daemon.ingest.access import Greeter
from trackd_daemon.ingest.agent import AgentIngest
from trackd_daemon.ingest.sessions import Sessions
from trackd_daemon.ingest.trimming import raw_data
from trackd_daemon.lifecycle.ownership import Ownership
from trackd_daemon.model import Batch
from trackd_daemon.store import EmbeddedStore, decode
from trackd_proto import batch, layout, limits, segment, spool, version
from trackd_proto.compress import CompressionError, Compressor, Decompressor
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2

from support import corpora, damaged
from support.corpora import WRITER
from support.pushing import Writer

MAX_SECONDS: Final = 1.0
MAX_MIB: Final = 512
_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@dataclass(frozen=True)
class Target:
    """`run` raises only what is `allowed`, which its callers handle."""

    run: Callable[[Path, bytes], object]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[BaseException], ...] = ()
    max_bytes: int = 1 << 16


# ------------------------------------------------------------------------------------------------------- targets


def _scan_segment(_: Path, data: bytes) -> object:
    return list(segment.scan(data))


def _recover(directory: Path, data: bytes) -> object:
    damaged.put(directory, {1: corpora.wals()[1].files[1] if data[:1] == b"\1" else data, 2: data[1:]})
    tops, _ = damaged.recovered_tops(directory)
    return damaged.deliver(directory, tops)


def _whole_frame(directory: Path, data: bytes) -> object:
    """Right checksums around anything: what a faulty version may have written."""
    kind, payload = data[0] % 7 if data else 0, data[1:]
    head = segment.encode_header(corpora.UUID, 1, 1, 1)
    damaged.put(directory, {1: head + segment.encode_frame(kind, 1, payload, segment.salt_of(corpora.UUID, 1))})
    tops, _ = damaged.recovered_tops(directory)
    return damaged.deliver(directory, tops)


def _chunks(directory: Path, data: bytes) -> object:
    damaged.put_chunks(
        directory, {0: data[: len(data) // 2], 1: data[len(data) // 2 :]} if data[:1] < b"\x80" else {0: data}
    )
    for is_dead in (True, False):
        damaged.tail_all(directory, published=30, is_dead=is_dead)
    return None


def _head(directory: Path, data: bytes) -> object:
    head = bytearray(data[: spool.HEAD_BYTES].ljust(spool.HEAD_BYTES, b"\0"))
    head[:16] = spool.MAGIC_WORD.to_bytes(8, "little") + version.SPOOL_FORMAT.to_bytes(8, "little")
    (directory / f"{WRITER.hex()}.head").write_bytes(head)
    (directory / "alive").touch()
    (directory / spool.chunk_name(WRITER.hex(), 0)).write_bytes(corpora.spools()[2].files[0])
    lane = SpoolLane(directory / f"{WRITER.hex()}.head")
    for _ in range(8):
        if item := lane.next_item():
            sender._to_batch(lane, item).SerializeToString()
    lane.resume(3)
    lane.next_item()
    lane.advance(1, 1, 1)
    lane.is_sent()
    lane.owner.ending()
    lane.close()
    return None


def _records(_: Path, data: bytes) -> object:
    return decode.decode(data[1:], 1, data[0] if data else 1, crc32=0)


def _zstd(_: Path, data: bytes) -> object:
    return Decompressor().decompress(data[4:], int.from_bytes(data[:4], "little"))


class _Sink:
    def append(self, batches: object) -> None:
        """A log that takes everything."""


class _Context:
    async def abort(self, _code: object, details: str) -> None:
        raise marks.InvalidBatchError(details)


def _agent() -> AgentIngest:
    return AgentIngest(Greeter(bytes(32), 1, ingest_pb2.ACK_DURABLE), marks.Ledger(), _Sink(), Sessions())


def _push(_: Path, data: bytes) -> object:
    request = ingest_pb2.PushRequest.FromString(data)

    async def take() -> None:
        agent = _agent()
        session = agent.sessions.open()
        for _ in range(2):  # the second time everything is a duplicate, or is cut
            agent._take(request, session)
        for taken in request.batches:
            taken.first_seq = max(1, taken.first_seq - 1)
            taken.count = min(taken.count + 2, 0xFFFFFFFF)
        agent._take(request, session)
        session._reply(agent._mark)

    return asyncio.run(take())


def _greet(_: Path, data: bytes) -> object:
    async def greet() -> None:
        agent = _agent()
        resume = ingest_pb2.ResumeRequest.FromString(data)
        await agent.Resume(resume, _Context())
        await agent.Hello(ingest_pb2.HelloRequest.FromString(data), _Context())

    return asyncio.run(greet())


def _ingest(directory: Path, data: bytes) -> object:
    """A batch as it comes over the wire, into a real store. Each input is another writer."""
    message = ingest_pb2.Batch.FromString(data)
    message.writer_id = uuid.uuid4().bytes
    size = message.raw_bytes if message.codec else len(message.data)
    marks.check(message.writer_id, message.first_seq, message.count, size, message.loss_reason)
    try:
        raw = b"" if message.loss_reason else raw_data(message, Decompressor())
    except CompressionError:
        return None
    store = stores.get(directory) or stores.setdefault(directory, EmbeddedStore.open(directory / "store"))
    taken = Batch(message.writer_id, message.project, message.run_id, 1, message.count, raw, message.loss_reason)
    (outcome,) = store.ingest([taken])
    assert outcome.next_seq == 1 + message.count, "a batch holds up its writer"
    return None


stores: dict[Path, EmbeddedStore] = {}


def _state_files(directory: Path, data: bytes) -> object:
    home = directory / "home"
    where = layout.Instance(home, "host")
    where.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    for path in (where.published, where.epoch, where.cookie, where.directory / "sessions.json"):
        path.write_bytes(data)
        path.chmod(0o600)
    instance.read_published(where)
    auth._load(where.directory / "sessions.json")
    assert 0 < Ownership.next_epoch(_Owned(where)) < 1 << 63  # type: ignore[arg-type]
    (where.directory / "session.json").write_bytes(data)
    if session := ServedSession.claim(where.directory):
        session.close(False)
    return instance.read_cookie(where.cookie)


class _Owned:
    def __init__(self, where: layout.Instance) -> None:
        self._where = where


def _logged(directory: Path, data: bytes) -> object:
    path = directory / "logged.json"
    path.write_bytes(data)
    return verify._noted(path)


# --------------------------------------------------------------------------------------------------------- seeds


def _segments() -> list[bytes]:
    golden = Path(__file__).parents[1] / "golden" / "segment-v1.wal"
    return [golden.read_bytes(), *(image for corpus in corpora.wals() for image in corpus.files.values())]


def _payloads() -> list[bytes]:
    return [bytes([p.kind]) + p.data for corpus in corpora.wals()[1:3] for p in corpus.placed]


def _heads() -> list[bytes]:
    head = bytearray(spool.HEAD_BYTES)
    target = spool.Target("online", "embedded", "p", "r", "/nonexistent", attempt="a" * 32, attempt_start_us=1)
    spool.put_area(memoryview(head), spool.TARGET_OFFSET, target)
    spool.put_area(memoryview(head), spool.LINKS_OFFSET, spool.Links("http://h/r"))
    head[8 * spool.PUBLISHED] = 20
    return [bytes(head[:1024]), bytes(head)]


def _batches() -> list[ingest_pb2.Batch]:
    plain = Writer("r").batch(1, 6)
    packed = Writer("r").batch(1, 40)
    packed.raw_bytes, packed.codec = len(packed.data), ingest_pb2.CODEC_ZSTD
    packed.data = Compressor().compress(packed.data)
    loss = ingest_pb2.Batch(writer_id=WRITER, first_seq=1, count=3, loss_reason="full", route="embedded", project="p")
    return [plain, packed, loss]


def _record_seeds() -> list[bytes]:
    encode = msgspec.msgpack.encode
    bodies: list[Any] = [
        {"a": 1.5, "b": 2},
        {"n": {"m": [1, None, True, "x"]}},
        {"k": {"__trackd__": ["int", "9" * 30]}},
    ]
    made = [encode([kind, 1_700_000_000_000_000, 3, body]) for kind in range(1, 11) for body in bodies]
    deep = b"\x94\x01\x00\x00\x81\xa1k" + b"\x91" * 3000 + b"\xc0"
    return [bytes([6]) + Writer("r").batch(1, 6).data, bytes([30]) + batch.join(made), b"\1" + batch.join([deep])]


def _zstds() -> list[bytes]:
    data = random.Random(1).randbytes(500) + b"0.125" * 300
    frame, bomb = Compressor().compress(data), Compressor().compress(bytes(64 * limits.MIB))
    sized = [
        (len(data), frame),
        (1 << 20, bomb),
        (64 << 20, bomb),
        (len(data), frame + frame),
        (0, b"\x50\x2a\x4d\x18\4\0\0\0abcd"),
    ]
    return [size.to_bytes(4, "little") + body for size, body in sized]


def _states() -> list[bytes]:
    newest = layout.Installation("0.1.0", ["py"], "/x")
    published = layout.Published(1, 1.5, 7, "/x/d7.sock", "0.1.0", 1, 1, "agent+hub", "http://127.0.0.1:1", newest)
    info = spool.SessionInfo(1, "/h", "host", 1, 1, "3.11")
    logged = b'{"writers": {"aa": {"last_seq": 5, "crc32": 1, "role": "main"}}}'
    return [msgspec.json.encode(published), msgspec.json.encode(info), b"ab" * 32, b"17", b"9" * 60, b"-3", logged,
            b'{"sessions": []}', b"[" * 50_000, b'{"role": "\xff"}']  # fmt: skip


def _serialized() -> list[bytes]:
    return [item.SerializeToString() for item in _batches()]


TARGETS: Final[dict[str, Target]] = {
    "segment": Target(_scan_segment, _segments, (segment.UnsupportedVersion,)),
    "recovery": Target(_recover, _segments, (segment.UnsupportedVersion,)),
    "whole frames": Target(_whole_frame, _payloads),
    "spool chunks": Target(_chunks, lambda: [i for c in corpora.spools() for i in c.files.values()], max_bytes=1 << 13),
    "spool head": Target(_head, _heads, (spool.SpoolError,), spool.HEAD_BYTES),
    "records": Target(_records, _record_seeds),
    "zstd": Target(_zstd, _zstds, (CompressionError,)),
    "Push": Target(
        _push,
        lambda: [ingest_pb2.PushRequest(batches=_batches(), live=[WRITER]).SerializeToString()],
        (DecodeError, marks.InvalidBatchError, batch.BatchError, CompressionError),
    ),
    "Hello, Resume": Target(
        _greet,
        lambda: [
            ingest_pb2.HelloRequest(protocol_min=1, protocol_max=1, client="c", nonce=WRITER).SerializeToString(),
            ingest_pb2.ResumeRequest(writer_ids=[WRITER, b""]).SerializeToString(),
        ],
        (DecodeError, marks.InvalidBatchError),
    ),
    "hub ingest": Target(_ingest, _serialized, (DecodeError, marks.InvalidBatchError), 1 << 12),
    "state files": Target(_state_files, _states, (ValueError,)),
    "logged.json": Target(_logged, _states, (ValueError,)),
}


# ------------------------------------------------------------------------------------------------------- mutation


def mutations(seeds: list[bytes], rng: random.Random, max_bytes: int) -> Iterator[bytes]:
    """The seeds, then endless variations: bits, interesting numbers, pieces cut, doubled, moved and mixed."""
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(1 << rng.randrange(5)):
            at = rng.randrange(len(data) + 1)
            size = 1 << rng.randrange(8)
            kind = rng.randrange(7)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_INTERESTING) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            elif kind == 2:
                del data[at : at + size]
            elif kind == 3:
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 50))
            elif kind == 4:
                other = rng.choice(seeds)
                begin = rng.randrange(len(other) + 1)
                data[at : at + size] = other[begin : begin + size]
            elif kind == 5:
                data[at : at + size] = rng.randbytes(size)
            else:
                data[at:at] = bytes([rng.randrange(256)]) * size * rng.choice((1, 20))
            del data[max_bytes:]
        yield bytes(data)


@dataclass
class Report:
    """What came of one target."""

    inputs: int = 0
    slowest_s: float = 0.0
    problems: tuple[str, ...] = ()


def fuzz(name: str, directory: Path, *, seconds: float, seed: int = 1, most: int = 1 << 60) -> Report:
    """Feed a target for so long, or so many inputs."""
    target, report, until = TARGETS[name], Report(), time.monotonic() + seconds
    for data in mutations(target.seeds(), random.Random(f"{name} {seed}"), target.max_bytes):
        started = time.monotonic()
        if started >= until or report.inputs >= most or len(report.problems) >= 5:
            break
        if problem := attempt(target, directory, data):
            report.problems += (f"{problem}: {base64.b85encode(data).decode()[:2000]}",)
        report.inputs += 1
        report.slowest_s = max(report.slowest_s, time.monotonic() - started)
    return report


def attempt(target: Target, directory: Path, data: bytes) -> str:
    """What came out that should not, or nothing."""
    try:
        target.run(directory, data)
    except target.allowed:
        pass
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
        return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    return ""


def main() -> int:
    name, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    memory = Path("/dev/shm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        report = fuzz(name, Path(directory), seconds=seconds, seed=seed)
        for store in stores.values():
            store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    is_good = not report.problems and report.slowest_s <= MAX_SECONDS and peak <= MAX_MIB
    print(
        f"{'ok  ' if is_good else 'FAIL'} {name:14} {report.inputs:9,} inputs, {len(report.problems)} exceptions,"
        f" slowest {report.slowest_s:.3f} s, memory {peak} MiB ({before} at the start)"
    )
    for problem in report.problems:
        print(f"    {problem}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

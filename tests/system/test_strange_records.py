"""T11: what no client of this version sends: records of a newer one, oversized ones, odd msgpack, unknown fields.

A trainer's real lane writes them between its rows; a real courier and agent pass them to a real hub.
"""

import asyncio
import json
import os
import sqlite3
import struct
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc import aio
from support import outages, scripts
from support.outages import Site
from support.pushing import NOW_US, Writer
from trackd_proto import limits, records
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

encode = msgspec.msgpack.encode
PROJECT = "strange"


def record(body: bytes, kind: int = records.ROW) -> bytes:
    """A whole record around the msgpack of a body."""
    return b"\x94" + encode(kind) + encode(NOW_US) + encode(0) + body


def of(value: bytes, key: bytes = b"\xa1k") -> bytes:
    """A body of one entry."""
    return b"\x81" + key + value


def tagged(value: Any) -> bytes:
    return record(encode({"tagged": {records.TAG: value}}))


TAKEN = {
    "ext": record(of(b"\xd4\x05\x00")),
    "a timestamp": record(of(b"\xd6\xff\x00\x00\x00\x01")),
    "ext in a config": record(of(b"\xd4\x05\x00"), records.CONFIG),
    "a timestamp as key": record(of(b"\x01", b"\xd6\xff\x00\x00\x00\x01")),
    "bytes": record(of(b"\xc4\x02\xff\x00")),
    "bytes as key": record(of(b"\x01", b"\xc4\x02\xff\x00")),
    "an array as key": record(of(b"\x01", b"\x91\x01")),
    "nil as key": record(of(b"\x01", b"\xc0")),
    "a key without letters": record(of(b"\x01", b"\xa0")),
    "a key with a zero": record(of(b"\x01", b"\xa3a\x00b")),
    "a key of 3,000 dots": record(of(b"\x01", b"\xda" + struct.pack(">H", 3000) + b"." * 3000)),
    "a config key of 3,000 dots": record(encode({"." * 3000: 1}), records.CONFIG),
    "a key of 60 KB": record(of(b"\x01", b"\xda" + struct.pack(">H", 60_000) + b"k" * 60_000)),
    "a key twice": record(b"\x82\xa1k\x01\xa1k\x02"),
    "a key twice once it is text": record(b"\x82\x01\x01\xa11\x02"),
    "NaN as key, twice": record(b"\x82" + 2 * b"\xcb\x7f\xf8\0\0\0\0\0\0\x01"),
    "an integer of 400 digits": tagged(["int", "9" * 400]),
    "an integer of 5,000 digits": tagged(["int", "9" * 5000]),
    "a tag of one element": tagged(["int"]),
    "a tag that is a number": tagged(5),
    "a tag of a newer version": tagged(["picture", {"sha": "x"}]),
    "an end that says nonsense": encode([records.EXIT, NOW_US, 0, {"state": {"a": 1}, "exit_code": "x"}]),
    "a second start": encode([records.START, NOW_US, 0, {"project": "another", "run_id": "another", "attempt": 5}]),
    **{f"{depth} maps": record(of(b"\x81\xa1a" * depth + b"\x01")) for depth in (31, 60)},
    **{f"{depth} lists": record(of(b"\x91" * depth + b"\x01")) for depth in (31, 60)},
}
"""Rows, or facts, as good as one can make them."""

KEPT = {
    "a kind of a newer version": encode([99, NOW_US, 0, {"a": 1}]),
    "one in which all is different": encode([2**40, "a", [1.5]]),
    "one of nothing else": encode([77]),
    "one with a key twice": b"\x94\x63\x01\x00\x82\xa1k\x01\xa1k\x02",
    "a row with one more element": encode([records.ROW, NOW_US, 0, {"newer": 1.5}, {"unit": "m"}]),
    "a config with two more": encode([records.CONFIG, NOW_US, 0, {"newer": 1.5}, 7, [8]]),
}
"""Of a newer version: kept as they came, and no loss."""

REFUSED = {
    "nothing": b"",
    "the byte that msgpack never uses": b"\xc1",
    "a byte too many": encode([records.ROW, NOW_US, 0, {"k": 1}]) + b"\0",
    "an array that promises more": b"\xdd\xff\xff\xff\xff\x01",
    "a map that promises more": record(b"\xdf\xff\xff\xff\xff\x01"),
    "a text that promises more": record(of(b"\xdb\xff\xff\xff\xff")),
    "text that is no UTF-8": record(of(b"\xa2\xff\xfe")),
    "a key that is no UTF-8": record(of(b"\x01", b"\xa2\xff\xfe")),
    "a map as key": record(of(b"\x01", b"\x81\x01\x01")),
    "a timestamp out of range": record(of(b"\xd7\xff" + b"\xff" * 8)),
    "a time beyond 64 bits": encode([records.ROW, 2**64 - 1, 0, {"k": 1}]),
    "a step beyond 64 bits": encode([records.ROW, NOW_US, 2**64 - 1, {"k": 1}]),
    "the least step of 64 bits": encode([records.ROW, NOW_US, -(2**63), {"k": 1}]),
    "a summary of nonsense": encode([records.SUMMARY, NOW_US, 0, {"set": 5, "del": 7}]),
    "a branch of nonsense": encode([records.START, NOW_US, 0, {"branch": 5}]),
    **{
        f"{depth} {what} of kind {kind}": record(of(step * depth + b"\x01"), kind)
        for depth in (70, 300, 600, 900, 1100, 100_000)
        for what, step in (("maps", b"\x81\xa1a"), ("lists", b"\x91"))
        for kind in (records.ROW, records.CONFIG)
    },
    "600 maps in a summary": record(b"\x81\xa3set" + of(b"\x81\xa1a" * 600 + b"\x01"), records.SUMMARY),
}
"""Declared lost, each alone, and kept as they came."""

TRAINER = """
import pathlib, sys, msgspec, trackd
from trackd_proto import limits
payloads = msgspec.msgpack.decode(pathlib.Path(sys.argv[1]).read_bytes())
neighbour = trackd.init(project="strange", id="neighbour", reinit="create_new")
run = trackd.init(project="strange", id="odd", reinit="create_new")
lane = run._lane
seqs = []
def put(payload):
    with lane._lock:
        lane._put(payload, lane._state[4], lane._state[6])
        seqs.append(lane._state[3])
for number, payload in enumerate(payloads):
    run.log({"i": number, "x": number / 7})
    neighbour.log({"i": number})
    put(payload)
limits.MAX_RECORD_BYTES = 4 << 20  # a newer version may have larger ones
run.log({"i": len(payloads)})
put(msgspec.msgpack.encode([1, 0, 0, {"large": "x" * (2 << 20)}]))
limits.MAX_RECORD_BYTES = 1 << 20
run.log({"i": len(payloads) + 1, **{f"wide/{n}": "x" * 1000 for n in range(1200)}})
run.log({"i": len(payloads) + 2, "cut": "x" * (3 << 20)})
is_there = [each.finish(wait_s=60) for each in (run, neighbour)]
print(msgspec.json.encode(seqs).decode())
"""


async def ask(one: Site, path: str) -> Any:
    """The hub's answer. Not from this thread: its loop is the hub's."""
    return await asyncio.to_thread(lambda: client_of(one).get(path))


def client_of(one: Site) -> HubClient:
    return HubClient.of_settings(Settings(home=str(one.hub.home)), can_start=False)


async def train(one: Site, program: str, *arguments: str, **environ: str) -> Any:
    """What a program beside the agent printed last, as JSON."""
    cookie = str(places.instance(one.hub.home).cookie)
    there = {"TRACKD_HOME": str(one.home), "TRACKD_UPSTREAM": one.route, "TRACKD_UPSTREAM_COOKIE": cookie, **environ}
    done = await asyncio.to_thread(scripts.python, program, *arguments, cwd=one.home, timeout_s=120, **there)
    return json.loads(done.stdout.splitlines()[-1])


async def test_a_strange_record_costs_no_other_and_breaks_no_answer(trackd_home: Path) -> None:
    strange = {**TAKEN, **KEPT, **REFUSED}
    payloads = trackd_home / "payloads"
    payloads.write_bytes(encode(list(strange.values())))
    async with outages.site(trackd_home) as one:
        *odd, large = await train(one, TRAINER, str(payloads))
        seq_of = dict(zip(strange, odd, strict=True))
        await outages.until(lambda: _committed(one, "odd"), "everything is committed", 60)
        await asyncio.to_thread(_check_rows, one, len(strange))
        about = next(w for w in (await ask(one, f"/runs/{PROJECT}/odd/writers"))["writers"] if w["role"] == "main")
        losses = {(loss["first_seq"], loss["count"]): loss["reason"] for loss in about["losses"]}
        assert losses.pop((large, 1)) == "damaged", "the courier takes none over the limit"
        assert losses == {(seq_of[name], 1): "undecodable" for name in REFUSED}
        kept = await asyncio.to_thread(_raw_records, one)
        assert kept.keys() == {seq_of[name] for name in (*KEPT, *REFUSED)}
        assert all(kept[seq_of[name]] == KEPT[name] for name in KEPT), "byte for byte"
        await asyncio.to_thread(_check_answers, one)


def _check_rows(one: Site, count: int) -> None:
    client = client_of(one)
    neighbours = [row["i"] for row in client.rows(f"/runs/{PROJECT}/neighbour/scan")]
    assert neighbours == list(range(count)), "another run of the same process, courier and agent"
    rows = list(client.rows(f"/runs/{PROJECT}/odd/scan"))
    mine = [row for row in rows if row.get("i") is not None]
    assert sorted(row["i"] for row in mine) == list(range(count + 3))
    assert all(row["x"] == row["i"] / 7 for row in mine if row["i"] < count)
    merged = {key: value for row in rows for key, value in row.items() if value is not None}
    assert merged["newer"] == 1.5, "what is known of a newer version's row"
    assert all(merged[f"wide/{n}"] == "x" * 1000 for n in range(1200))
    assert "larger than a record" in merged["cut"]
    assert "large" not in merged


async def _committed(one: Site, run_id: str) -> bool:
    state = (await ask(one, f"/runs/{PROJECT}/{run_id}"))["state"]
    return state != "running" and (await one.route_status()).lag_records == 0


def _raw_records(one: Site) -> dict[int, bytes]:
    (catalog,) = one.hub.home.glob("*/store/catalog.sqlite")
    with sqlite3.connect(f"file:{catalog}?mode=ro", uri=True) as database:
        return dict(database.execute("SELECT seq, data FROM raw_records"))


def _check_answers(one: Site) -> None:
    """Everything that reads the run, or the project, still can."""
    client = client_of(one)
    base = f"/runs/{PROJECT}/odd"
    for path in ("", "/keys", "/attempts", "/history"):
        client.get(base + path)
    assert {run["run_id"] for run in client.get(f"/projects/{PROJECT}/runs")["runs"]} == {"odd", "neighbour"}
    client.get(f"/projects/{PROJECT}/columns")
    for kind in ("csv", "jsonl", "parquet"):
        with client.open(f"{base}/export", {"format": kind}) as answer:
            assert len(b"".join(answer.stream(1 << 18))) > 10_000, kind


DEEP = """
import json, time, warnings, trackd
warnings.simplefilter("ignore")
run = trackd.init(project="strange", id="deep")
def deep(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value
endless, ring = [], {}
endless.append(endless)
ring["self"] = ring
values = [deep(d, w) for d in (31, 32, 33, 600, 5000) for w in (lambda v: [v], lambda v: {"a": v}, lambda v: (v,))]
began = time.monotonic()
for number, value in enumerate([*values, endless, ring]):
    run.log({"i": number, f"deep{number}": value})
took_s = time.monotonic() - began
run.finish(wait_s=60)
print(json.dumps({"rows": number + 1, "took_s": took_s}))
"""


async def test_a_value_without_a_bottom_holds_up_no_loop_and_costs_no_row(trackd_home: Path) -> None:
    async with outages.site(trackd_home) as one:
        said = await train(one, DEEP)
        assert said["took_s"] < 5
        await outages.until(lambda: _committed(one, "deep"), "everything is committed", 60)
        rows = await asyncio.to_thread(lambda: list(client_of(one).rows(f"/runs/{PROJECT}/deep/scan")))
        assert [row["i"] for row in rows] == list(range(said["rows"]))
        writers = (await ask(one, f"/runs/{PROJECT}/deep/writers"))["writers"]
        assert [about["losses"] for about in writers] == [[]] * len(writers)


UNKNOWN = b"\x9a\x06\x0bof tomorrow\xa0\x06\x01"
"""Fields 99 and 100 of any message."""


def with_unknown_fields(batch: ingest_pb2.Batch) -> ingest_pb2.PushRequest:
    """A request of a newer client: fields that nobody here knows, in it and in its batch."""
    newer = ingest_pb2.Batch.FromString(batch.SerializeToString() + UNKNOWN)
    return ingest_pb2.PushRequest.FromString(
        ingest_pb2.PushRequest(batches=[newer]).SerializeToString() + UNKNOWN,
    )


async def test_unknown_fields_travel_from_client_to_hub(trackd_home: Path) -> None:
    seen: list[int] = []

    def look(batch: ingest_pb2.Batch) -> bool:
        seen.extend([batch.first_seq] if UNKNOWN in batch.SerializeToString() else [])
        return False

    async with outages.site(trackd_home) as one:
        newer, plain = writers = one.writers(2)
        one.hub.faults.poison = look
        link = await instance.connect(one.where)
        call = link.ingest.Push()
        for first in range(1, 61, 3):
            await call.write(with_unknown_fields(newer.batch(first, first + 2)))
        await call.write(with_unknown_fields(newer.batch(61, 600)))  # so large that the agent compresses it
        await call.done_writing()
        while await asyncio.wait_for(call.read(), 30) is not aio.EOF:  # type: ignore[attr-defined]
            pass
        await link.channel.close()
        await one.push(writers, 600, until="committed")
        await one.check([newer, plain], 600)
    assert seen, "no unknown field came through: the hub was never shown one"


def too_large(one: Writer, first: int) -> ingest_pb2.Batch:
    """More than a batch may hold."""
    batch = one.batch(first, first)
    batch.data = os.urandom(limits.MAX_BATCH_BYTES + 1)
    return batch


def as_large_as_allowed(one: Writer, first: int) -> ingest_pb2.Batch:
    """Several of them are more than one message may hold."""
    batch = one.batch(first, first)
    batch.data = os.urandom(limits.MAX_BATCH_BYTES)
    return batch


OVERSIZED = [
    ([too_large], grpc.StatusCode.INVALID_ARGUMENT),
    ([as_large_as_allowed] * 5, grpc.StatusCode.RESOURCE_EXHAUSTED),
]


@pytest.mark.parametrize(("makes", "code"), OVERSIZED, ids=["a batch", "a message"])
async def test_what_is_too_large_ends_its_own_stream_only(
    trackd_home: Path, makes: list[Any], code: grpc.StatusCode
) -> None:
    async with outages.site(trackd_home) as one:
        greedy, healthy = one.writers(2)
        await one.push([greedy, healthy], 10)
        link = await instance.connect(one.where)
        published = instance.read_published(one.where)
        assert published is not None
        # A client with larger limits than ours.
        channel = aio.insecure_channel(f"unix:{published.socket}", options=[("grpc.max_send_message_length", -1)])
        stub = ingest_pb2_grpc.IngestStub(instance.ProvenChannel(channel, link.channel.metadata))
        call = stub.Push()
        large = [make(greedy, 11 + number) for number, make in enumerate(makes)]
        beside = asyncio.create_task(one.push([healthy], 300, until="committed"))
        assert await _refusal(call.write(ingest_pb2.PushRequest(batches=large)), call) == code
        await asyncio.wait_for(beside, 10)
        await channel.close()
        await link.channel.close()
        await one.push([greedy], 300, until="committed")
        await one.check([greedy, healthy], 300)


async def _refusal(writing: Awaitable[None], call: Any) -> grpc.StatusCode:
    """With what a stream ends after this request."""
    try:
        await writing
        while await asyncio.wait_for(call.read(), 30) is not aio.EOF:  # type: ignore[attr-defined]
            pass
    except aio.AioRpcError:
        pass
    code: grpc.StatusCode = await call.code()
    return code

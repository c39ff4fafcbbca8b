"""Whatever hub and network do wrong, everything arrives once and in order; long form: scripts/torture hub.

T10 and T11: a real agent, a proxy, a real hub that can be at fault.
"""

import os
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support import outages
from support.outages import Fault, Site, until
from trackd_proto.v1 import ingest_pb2

SHORT = {
    "RST at connect", "cut in the middle of a message", "HTTP/1.1 502 of a reverse proxy",
    "HTTP/2 401 of a reverse proxy", "HTTP/2 404 of a reverse proxy", "UNAVAILABLE to everything",
    "UNAUTHENTICATED to everything", "INVALID_ARGUMENT to Push", "CANCELLED to Resume", "time-out after commit",
    "every request three times", "requests in reverse order", "a stale next_seq",
}  # fmt: skip
"""One of each kind."""


def chosen() -> list[Fault]:
    found = [f for f in (*outages.NETWORK, *outages.HTTP2, *outages.ANSWERS) if f.name in SHORT]
    assert len(found) == len(SHORT)
    return found


async def test_nothing_is_lost_doubled_or_reordered_by_wrong_answers(trackd_home: Path) -> None:
    async with outages.site(trackd_home) as one:
        for fault in chosen():
            await fault.suffer(one, 60, 0.0)


async def test_a_hub_that_is_down_is_left_alone_and_found_again(trackd_home: Path) -> None:
    async with outages.site(trackd_home) as one:
        writers = one.writers()
        await one.push(writers, 100, until="committed")
        one.proxy.is_resetting = True
        one.proxy.connects.clear()
        one.proxy.reset_all()
        await one.push(writers, 200)
        await until(lambda: _connected(one, 3), "three attempts")
        gaps = [after - before for before, after in pairwise(one.proxy.connects)]
        assert min(gaps) > 0.95, gaps
        one.proxy.heal()
        await one.push(writers, 200, until="committed")
        await one.check(writers, 200)


async def _connected(one: Site, times: int) -> bool:
    return len(one.proxy.connects) >= times


@pytest.mark.skipif(not os.environ.get("TORTURE"), reason="waits for seconds: TORTURE=1 runs it")
async def test_a_hub_that_says_when_to_come_back_is_obeyed(trackd_home: Path) -> None:
    async with outages.site(trackd_home) as one:
        writers = one.writers(1)
        await one.push(writers, 10, until="committed")
        faults = one.hub.faults
        faults.refusal, faults.metadata = outages.grpc.StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "3"),)
        one.proxy.reset_all()
        await one.push(writers, 20)
        await until(lambda: _refused(one), "it was told")
        told, calls = time.monotonic(), faults.calls["Hello"]
        faults.heal()
        await one.push(writers, 20, until="committed")
        assert faults.calls["Hello"] == calls + 1
        assert time.monotonic() - told > 2.5


async def _refused(one: Site) -> bool:
    return one.hub.faults.fired["RESOURCE_EXHAUSTED"] > 0


async def test_a_restored_hub_gets_back_what_the_agent_has_and_the_rest_is_declared(trackd_home: Path) -> None:
    """A copy of the store, made while it was down, is put back later; the agent's log still holds all or part."""
    async with outages.site(trackd_home) as one:
        writers = one.writers(2)
        await one.push(writers, 100, until="committed")
        await one.hub.stop()
        (store,) = one.hub.home.glob("*/store")
        copy = trackd_home / "backup"
        shutil.copytree(store, copy)
        await one.hub.start()
        await one.push(writers, 300, until="committed")
        await one.hub.stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        await one.hub.start()
        await until(lambda: _has(one, writers[0], 301), "what was retained comes back, though nobody logs any more", 60)
        await until(lambda: _has(one, writers[1], 301), "of every writer", 60)
        await one.check(writers, 300)


async def _has(one: Site, writer: outages.Writer, next_seq: int) -> bool:
    _, about = await one.held(writer)
    return bool(about["next_seq"] == next_seq)


async def test_only_the_poison_record_is_parked_and_its_neighbours_hardly_wait(trackd_home: Path) -> None:
    async with outages.site(trackd_home) as one:
        sick, *healthy = writers = one.writers(3)
        await one.push(writers, 100, until="committed")
        one.hub.faults.poison = lambda batch: _covers(batch, sick, 150)
        began = time.monotonic()
        await one.push(writers, 200, until="committed", size=100)
        assert one.hub.faults.fired["poison"] > 1
        assert time.monotonic() - began < 10, "one time-out"
        await one.check(healthy, 200)
        values, about = await one.held(sick)
        assert values == [n for n in range(2, 201) if n != 150]
        losses = [(loss["first_seq"], loss["count"], loss["reason"]) for loss in about["losses"]]
        assert losses == [(150, 1, "rejected")]
        (parked,) = (one.where.directory / "parked").iterdir()
        assert parked.read_bytes() == sick.record(150), "kept as it was logged"
        status = await one.status()
        assert any("parked" in warning for warning in status.warnings), "the user is told where"
        one.hub.faults.heal()
        await one.push(writers, 300, until="committed")


def _covers(batch: ingest_pb2.Batch, writer: outages.Writer, seq: int) -> bool:
    is_inside = batch.first_seq <= seq < batch.first_seq + batch.count
    return batch.writer_id == writer.writer_id and is_inside and not batch.loss_reason


async def test_a_hub_that_rejects_everything_makes_nobody_drop_anything(trackd_home: Path) -> None:
    """INVALID_ARGUMENT to each record is a broken hub, not a thousand bad records."""
    async with outages.site(trackd_home) as one:
        writers = one.writers(1)
        one.hub.faults.poison = lambda _batch: True
        await one.push(writers, 50)
        await until(lambda: _is_paused(one), "the route is paused")
        assert one.hub.faults.fired["poison"] > 3
        one.hub.faults.heal()
        await one.hurry()
        await one.push(writers, 50, until="committed")
        await one.check(writers, 50)
        assert not list((one.where.directory / "parked").iterdir())


async def _is_paused(one: Site) -> bool:
    return (await one.route_status()).state == "paused"

"""An agent of its own process, a proxy, and a real hub that can be at fault: what arrives in the end.

The oracle: writers push records 1..n whose value follows from the seq; after the fault each of them must be in the hub
once, in order, with its value, and nothing may be declared lost.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2

from support import pushing, serving
from support.faulty_hub import FaultyHub
from support.proxy import Proxy, proxying
from support.pushing import Writer

_PROJECT = "outages"


class Site:
    """One agent, one hub, a proxy between them."""

    def __init__(self, home: Path, hub: FaultyHub, proxy: Proxy) -> None:
        self.home = home
        self.hub = hub
        self.proxy = proxy
        self.where = places.instance(home)
        self._writers = 0

    @property
    def route(self) -> str:
        """The agent's name for the hub."""
        return f"127.0.0.1:{self.proxy.port}"

    def writers(self, count: int = 2) -> list[Writer]:
        """New ones, each with a run of its own."""
        self._writers += count
        numbers = range(self._writers - count, self._writers)
        return [Writer(f"run-{n}", _PROJECT, self.route) for n in numbers]

    async def push(self, writers: Sequence[Writer], last: int, *, until: str = "durable", size: int = 50) -> None:
        """Hand records up to `last` to the agent."""
        link = await instance.connect(self.where)
        try:
            await pushing.push(link, writers, last, until=until, size=size)
        finally:
            await link.channel.close()

    async def status(self) -> ingest_pb2.StatusReply:
        """What the agent says of itself."""
        link = await instance.connect(self.where)
        try:
            reply: ingest_pb2.StatusReply = await link.control.Status(ingest_pb2.StatusRequest(), timeout=10)
            return reply
        finally:
            await link.channel.close()

    async def route_status(self) -> ingest_pb2.RouteStatus:
        """Of the route to the hub."""
        return next(r for r in (await self.status()).routes if r.route == self.route)

    async def hurry(self) -> None:
        """What `trackd flush` does first: try now."""
        link = await instance.connect(self.where)
        with contextlib.suppress(aio.AioRpcError):
            await link.control.Flush(ingest_pb2.FlushRequest(timeout_s=0.1), timeout=10)
        await link.channel.close()

    async def held(self, writer: Writer) -> tuple[list[int], dict[str, Any]]:
        """Values of its rows in the hub, in order, and what the hub says of the writer."""
        return await asyncio.to_thread(self._held, writer)

    def _held(self, writer: Writer) -> tuple[list[int], dict[str, Any]]:
        client = HubClient.of_settings(Settings(home=str(self.hub.home)), can_start=False)
        values = [row["value"] for row in client.rows(f"/runs/{_PROJECT}/{writer.run_id}/scan")]
        (about,) = client.get(f"/runs/{_PROJECT}/{writer.run_id}/writers")["writers"]
        return values, about

    async def check(self, writers: Sequence[Writer], last: int) -> None:
        """Everything is in the hub, once, in order, with its value, and nothing is declared lost."""
        for writer in writers:
            values, about = await self.held(writer)
            assert values == list(range(2, last + 1)), f"{writer.run_id}: {len(values)} rows of {last - 1}"
            assert (about["records"], about["next_seq"], about["losses"]) == (last, last + 1, []), about


@contextlib.asynccontextmanager
async def site(home: Path, **environ: str) -> AsyncIterator[Site]:
    """A running site below `home`."""
    (home / "hub").mkdir()
    (home / "agent").mkdir()
    hub = FaultyHub(home / "hub", serving.free_port())
    await hub.start()
    cookie = str(places.instance(hub.home).cookie)
    agent = home / "agent"
    try:
        async with proxying(hub.port) as proxy:
            one = Site(agent, hub, proxy)
            settings = {"TRACKD_UPSTREAM": one.route, "TRACKD_UPSTREAM_COOKIE": cookie, **environ}
            with serving.serving(agent, "--role", "agent", **settings) as process:
                await until(lambda: _is_up(one), "the agent listens")
                try:
                    yield one
                finally:
                    process.terminate()
                    await asyncio.to_thread(process.wait, 20)
    finally:
        await hub.stop()


async def _is_up(one: Site) -> bool:
    try:
        await one.status()
    except (ConnectionError, aio.AioRpcError):
        return False
    return True


async def until(is_so: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0) -> float:
    """Until it is so; the seconds it took. `what` names it in the failure."""
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


# ------------------------------------------------------------------------------------------------------ faults


class Fault:
    """One kind of trouble: how it is made, what proves that it happened, which state the route must be in."""

    def __init__(
        self,
        name: str,
        make: Callable[[Site], None],
        fired: Callable[[Site], int],
        state: str = "",
        *,
        is_mended_by_reset: bool = True,
    ) -> None:
        self.name = name
        self.make = make
        self.fired = fired
        self.state = state
        self.is_mended_by_reset = is_mended_by_reset

    async def suffer(self, one: Site, last: int, seconds: float, *, is_patient: bool = False) -> float:
        """New writers push `last` records each, half before and half during `seconds` of the fault; afterwards all is
        in the hub. `is_patient`: wait for the agent's own retry instead of asking for one. Seconds until committed."""
        writers = one.writers()
        await one.push(writers, last // 2)
        before = self.fired(one)
        self.make(one)
        if self.is_mended_by_reset:
            one.proxy.reset_all()  # established connections must meet the fault too
        await one.push(writers, last)
        ends = time.monotonic() + seconds
        await until(lambda: self._has_fired(one, before), f"{self.name}: fired")
        if self.state:
            await until(lambda: self._is_told(one), f"{self.name}: the status says {self.state}")
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        one.hub.faults.heal()
        one.proxy.heal()
        if self.is_mended_by_reset:
            one.proxy.reset_all()
        began = time.monotonic()
        if not is_patient:
            await one.hurry()
        await one.push(writers, last, until="committed")
        took_s = time.monotonic() - began
        await one.check(writers, last)
        return took_s

    async def _has_fired(self, one: Site, before: int) -> bool:
        await one.hurry()
        return self.fired(one) > before

    async def _is_told(self, one: Site) -> bool:
        await one.hurry()
        status = await one.route_status()
        return status.state == self.state and bool(status.reason) and status.lag_records > 0


def _proxy_fault(name: str, key: str, state: str = "", **attributes: Any) -> Fault:
    def make(one: Site) -> None:
        for attribute, value in attributes.items():
            setattr(one.proxy, attribute, value)

    return Fault(name, make, lambda one: one.proxy.fired[key], state)


def _hub_fault(name: str, key: str, state: str = "", **attributes: Any) -> Fault:
    def make(one: Site) -> None:
        for attribute, value in attributes.items():
            setattr(one.hub.faults, attribute, value)

    return Fault(name, make, lambda one: one.hub.faults.fired[key], state)


_Code = grpc.StatusCode
_RETRIED = (
    _Code.UNAVAILABLE, _Code.INTERNAL, _Code.UNKNOWN, _Code.ABORTED, _Code.DEADLINE_EXCEEDED, _Code.CANCELLED,
    _Code.RESOURCE_EXHAUSTED,
)  # fmt: skip
_PAUSED = (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.NOT_FOUND, _Code.UNIMPLEMENTED)
_PUSH = ("Push",)

NETWORK = [
    _proxy_fault("RST at connect", "refused", "retrying", is_resetting=True),
    _proxy_fault("cut in the middle of a message", "cut", cut_after_bytes=1_200),
    _proxy_fault("latency 0.3 s", "delayed", latency_s=0.3),
    _proxy_fault("HTTP/1.1 502 of a reverse proxy", "http/1.1", "retrying", status_h1=502),
]
HTTP2 = [
    _proxy_fault(f"HTTP/2 {status} of a reverse proxy", "http/2", state, status_h2=status)
    for status, state in (
        (401, "paused"), (403, "paused"), (404, "paused"), (413, "retrying"), (429, "retrying"), (500, "retrying"),
        (503, "retrying"),
    )
]  # fmt: skip
ANSWERS = [
    *[_hub_fault(f"{code.name} to everything", code.name, "retrying", refusal=code) for code in _RETRIED],
    *[_hub_fault(f"{code.name} to everything", code.name, "paused", refusal=code) for code in _PAUSED],
    *[
        _hub_fault(f"{code.name} to Push", code.name, refusal=code, refused=_PUSH)
        for code in (*_RETRIED, *_PAUSED, _Code.INVALID_ARGUMENT)
    ],
    _hub_fault("INVALID_ARGUMENT to everything", "INVALID_ARGUMENT", "paused", refusal=_Code.INVALID_ARGUMENT),
    _hub_fault("CANCELLED to Resume", "CANCELLED", "retrying", refusal=_Code.CANCELLED, refused=("Resume",)),
    _hub_fault("time-out after commit", "answers lost", lose_answers_after=1),
    _hub_fault("every request three times", "repeated", repeat=3),
    _hub_fault("requests in reverse order", "reordered", shuffle=2),
    _hub_fault("a stale next_seq", "stale", stale_by=7),
]
SLOW = [
    _proxy_fault("a black hole", "black hole", "retrying", is_black_hole=True),
    _proxy_fault("a half-open connection", "half-open", "retrying", is_half_open=True),
    _proxy_fault("1 KB/s", "narrow", bytes_per_s=1_000.0),
    _proxy_fault("latency 2 s", "delayed", latency_s=2.0),
]

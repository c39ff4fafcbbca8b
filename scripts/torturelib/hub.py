#!/usr/bin/env python3
"""scripts/torture hub [minutes]: outages and wrong answers of the hub (T10, T11); default 10 minutes.

A real agent, a proxy and a real hub: every kind of fault, a real outage with the agent knocking by itself while records
come in, what it catches up afterwards, a hub restored from a backup, flapping. Prints rows of the torture table.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path

import table

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support import outages, processes
from support.outages import Site

RATE = 500
"""Records per second and writer that come in during the outage."""


async def every_fault(one: Site) -> None:
    """Each kind of trouble for some seconds, with records coming in."""
    faults = [*outages.NETWORK, *outages.HTTP2, *outages.ANSWERS, *outages.SLOW]
    bad = []
    for fault in faults:
        try:
            await asyncio.wait_for(fault.suffer(one, 400, 2.0), 240)
        except (AssertionError, ConnectionError, asyncio.TimeoutError, outages.aio.AioRpcError) as error:
            bad.append(f"{fault.name}: {type(error).__name__} {error}"[:300])
            one.hub.faults.heal()
            one.proxy.heal()
            one.proxy.reset_all()
    fired = sum(one.proxy.fired.values()) + sum(one.hub.faults.fired.values())
    what = f"{len(faults)} kinds of network faults and wrong answers, each seen to fire ({fired} times in all)"
    table.report("T10", what, f"{len(bad)} with a lost, doubled or reordered record", "0", ok=not bad)
    for line in bad:
        print(f"  {line}")


async def outage(one: Site, seconds: float) -> None:
    """The hub is down for long; records come in all the time; then it is back and nobody hurries the agent."""
    writers = one.writers(4)
    last = 100
    await one.push(writers, last, until="committed")
    one.proxy.is_resetting = True
    one.proxy.reset_all()
    one.proxy.connects.clear()
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        last = max(last, 100 + int(passed * RATE))
        await one.push(writers, last, size=200)
        await asyncio.sleep(0.5)
    took_s = time.monotonic() - began
    connects = list(one.proxy.connects)
    shortest = min((b - a for a, b in itertools.pairwise(connects)), default=0.0)
    backlog = 4 * (last - 100)
    what = f"hub down for {took_s / 60:.1f} min, {backlog} records meanwhile"
    measured = f"{len(connects)} attempts, {len(connects) / took_s:.2f}/s, never less than {shortest:.2f} s apart"
    table.report("T10", what, measured, "1/s", ok=bool(connects) and len(connects) <= took_s and shortest > 0.95)
    one.proxy.heal()
    again = time.monotonic()
    await outages.until(lambda: _in_touch(one), "it is found again by itself", 90)
    found = time.monotonic()
    await one.push(writers, last, until="committed")
    caught_up_s = time.monotonic() - found
    await one.check(writers, last)
    ingest, rate = backlog / took_s, backlog / caught_up_s
    measured = f"found after {found - again:.1f} s, {rate:.0f}/s: {rate / ingest:.1f} x the {ingest:.0f}/s that came in"
    table.report("T10", "catching up", measured + ", 0 lost", "5 x, 0", ok=rate >= 5 * ingest)


async def _in_touch(one: Site) -> bool:
    return (await one.route_status()).state == "connected"


async def flapping(one: Site, seconds: float) -> None:
    """One second on, one second off."""
    writers = one.writers(2)
    ends, last, flaps = time.monotonic() + seconds, 0, 0
    while time.monotonic() < ends:
        flaps += 1
        one.proxy.is_resetting = bool(flaps % 2)
        one.proxy.reset_all()
        last += 100
        await one.push(writers, last)
        await asyncio.sleep(1.0)
    one.proxy.heal()
    await one.push(writers, last, until="committed")
    await one.check(writers, last)
    table.report("T10", f"flapping, {flaps} changes", f"0 of {2 * last} records lost or doubled", "0", ok=flaps > 1)


async def restored(one: Site) -> None:
    """The store is replaced by a copy of itself from before."""
    writers = one.writers(3)
    await one.push(writers, 500, until="committed")
    await one.hub.stop()
    (store,) = one.hub.home.glob("*/store")
    copy = one.hub.home / "backup"
    shutil.copytree(store, copy)
    await one.hub.start()
    await one.push(writers, 2_000, until="committed")
    await one.hub.stop()
    shutil.rmtree(store)
    copy.rename(store)
    await one.hub.start()
    for writer in writers:
        await outages.until(lambda w=writer: _holds(one, w, 2_001), f"{writer.run_id} is whole again", 120)
    await one.check(writers, 2_000)
    table.report(
        "T10", "hub restored from a copy 1,500 records older", "all of 3 writers sent again, 0 doubled", "all", ok=True
    )


async def _holds(one: Site, writer: outages.Writer, next_seq: int) -> bool:
    with contextlib.suppress(Exception):
        return bool((await one.held(writer))[1]["next_seq"] == next_seq)
    return False


async def run(home: Path, minutes: float) -> None:
    async with outages.site(home) as one:
        await every_fault(one)
        await restored(one)
        await flapping(one, minutes * 60 * 0.2)
        await outage(one, minutes * 60 * 0.4)


def main(minutes: float) -> None:
    home = Path(tempfile.mkdtemp(prefix="trackd-hub-"))
    try:
        asyncio.run(run(home, minutes))
    finally:
        processes.stop_home(home)
        shutil.rmtree(home, ignore_errors=True)
    table.leave()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)

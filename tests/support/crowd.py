"""Many writers on one agent: client processes push records of a thousand writers each, first without a hub.

What the agent takes is sampled; it is killed with everything in its log, started again, and then a hub comes. The
oracle: each record of each writer is a row with a value of its own, which has to be there once, in the order of steps.
`python -m support.crowd HOME ROUTE RUNS LAST PAD_BYTES NUMBER` is one client.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from grpc import aio
from trackd_proto import records
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, HubError
from trackd_proto.v1 import ingest_pb2

from support import nonblocking, pushing, samples, serving
from support.looking import looking

PROJECT = "crowd"
_BATCH_BYTES = 400_000
_MOST_CLIENTS = 1000
_encode = msgspec.msgpack.Encoder().encode


@dataclass
class Writer(pushing.Writer):
    """One of several of its run, all in one attempt."""

    pad_bytes: int = 0
    number: int = 0
    """Among the writers of its run: their rows have steps and values of their own."""

    def record(self, seq: int) -> bytes:
        kind, at_us, step, content = msgspec.msgpack.decode(super().record(seq))
        if kind == records.START:
            content["attempt"] = self.run_id
            return _encode([kind, at_us, step, content])
        step = seq * _MOST_CLIENTS + self.number
        content["value"] = step
        if self.pad_bytes:
            content["pad"] = random.Random(seq).randbytes(self.pad_bytes // 2).hex()
        return _encode([kind, at_us, step, content])


@dataclass
class Outcome:
    """What was seen."""

    received_s: list[float] = field(default_factory=list)
    """From handing a batch over to the watermark that covers it, sorted."""
    durable_s: list[float] = field(default_factory=list)
    push_s: float = 0.0
    recovery_s: float = 0.0
    drain_s: float = 0.0
    wal_bytes: int = 0
    most_bytes: int = 0
    """Of the agent's memory, over all samples."""
    most_hub_bytes: int = 0
    descriptors: int = 0
    samples: int = 0
    held: int = 0
    problems: list[str] = field(default_factory=list)


def drive(
    directory: Path, clients: int, runs: int, last: int, *, pad_bytes: int = 0, timeout_s: float = 900.0
) -> Outcome:
    """`clients` processes with a writer in each of `runs` runs, `last` records per writer."""
    site, outcome = nonblocking.Site(directory), Outcome()
    try:
        site.start_hub()  # for its address and cookie
        site.stop_hub()
        site.start_agent()
        with _watched(lambda: site.agent().pid, outcome):
            began = time.monotonic()
            _push(site, clients, runs, last, pad_bytes, outcome, timeout_s)
            outcome.push_s = time.monotonic() - began
            outcome.wal_bytes = samples.directory_bytes(places.instance(site.home).wal)
            site.agent().kill()
            serving.wait_for(lambda: not serving.ready(places.instance(site.home)), "the agent is gone")
            began = time.monotonic()
            site.start_agent()
            outcome.recovery_s = time.monotonic() - began
            site.start_hub()
            began = time.monotonic()
            _judge(places.instance(site.hub_home), clients, runs, last, outcome, timeout_s)
            outcome.drain_s = time.monotonic() - began
    finally:
        site.close()
    return outcome


@contextmanager
def _watched(agent: Callable[[], int], outcome: Outcome) -> Iterator[None]:
    """Memory and descriptors of the agent every 0.1 s."""

    def look() -> None:
        with suppress(OSError, KeyError, ValueError):
            one = samples.read(agent())
            outcome.samples += 1
            outcome.most_bytes = max(outcome.most_bytes, one.rss_bytes)
            outcome.descriptors = max(outcome.descriptors, one.descriptors)

    with looking(look, every_s=0.1):
        yield


def _push(
    site: nonblocking.Site, clients: int, runs: int, last: int, pad_bytes: int, outcome: Outcome, timeout_s: float
) -> None:
    route = site.environment["TRACKD_UPSTREAM"]
    command = [sys.executable, "-m", "support.crowd", str(site.home), route, str(runs), str(last), str(pad_bytes)]
    environment = site.environment | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    pushing_now = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, env=environment) for number in range(clients)
    ]
    try:
        for client in pushing_now:
            out, _ = client.communicate(timeout=timeout_s)
            assert client.returncode == 0, "a client failed"
            received, durable = json.loads(out)
            outcome.received_s += received
            outcome.durable_s += durable
    finally:
        for client in pushing_now:
            client.kill()
            client.wait()
    outcome.received_s.sort()
    outcome.durable_s.sort()


def _judge(where: instance.Instance, clients: int, runs: int, last: int, outcome: Outcome, timeout_s: float) -> None:
    """Waits for each run to be complete, then compares its rows."""
    deadline = time.monotonic() + timeout_s
    wanted = [seq * _MOST_CLIENTS + number for seq in range(2, last + 1) for number in range(clients)]
    for number in range(runs):
        values: list[int] = []
        path, writers = f"/runs/{PROJECT}/run-{number}", []
        while True:
            with suppress(HubError):
                client = HubClient.find(where)
                writers = client.get(f"{path}/writers")["writers"]
                if sum(w["records"] for w in writers) >= clients * last:
                    values = [row["value"] for row in client.rows(f"{path}/scan")]
                    break
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        outcome.held += len(values)
        losses = [w["losses"] for w in writers if w["losses"]]
        if values != wanted or losses or len(writers) != clients:
            outcome.problems.append(f"run-{number}: {len(values)} rows, {len(writers)} writers, lost {losses[:3]}")


async def client(
    home: Path, route: str, runs: int, last: int, pad_bytes: int, number: int
) -> tuple[list[float], list[float]]:
    """Pushes its writers' records, all writers in turn; seconds until each batch was received, and durable."""
    link = await instance.connect(places.instance(home))
    writers = [Writer(f"run-{n}", PROJECT, route, pad_bytes=pad_bytes, number=number) for n in range(runs)]
    size = max(1, min(25, _BATCH_BYTES // max(1, pad_bytes)))
    call = link.ingest.Push()
    sent: dict[bytes, list[tuple[int, float]]] = {w.writer_id: [] for w in writers}
    reading = asyncio.create_task(_read(call, sent, len(writers) * last))
    for first in range(1, last + 1, size):
        for writer in writers:
            final = min(first + size - 1, last)
            request = ingest_pb2.PushRequest(batches=[writer.batch(first, final)])
            sent[writer.writer_id].append((final, time.monotonic()))
            await call.write(request)
    received, durable = await reading
    call.cancel()
    await link.channel.close()
    return received, durable


async def _read(
    call: aio.StreamStreamCall, sent: dict[bytes, list[tuple[int, float]]], count: int
) -> tuple[list[float], list[float]]:
    """Until the durable watermarks add up to `count`."""
    took: dict[str, list[float]] = {"received": [], "durable": []}
    reached = {"received": dict.fromkeys(sent, 0), "durable": dict.fromkeys(sent, 0)}
    passed = {"received": dict.fromkeys(sent, 0), "durable": dict.fromkeys(sent, 0)}
    done = 0
    while done < count:
        reply = await call.read()
        if reply is aio.EOF:  # type: ignore[attr-defined]
            raise ConnectionError("the stream ended")
        now = time.monotonic()
        for mark in reply.watermarks:
            for name, seconds in took.items():
                seq, before = getattr(mark, name), reached[name][mark.writer_id]
                if seq <= before:
                    continue
                reached[name][mark.writer_id] = seq
                done += seq - before if name == "durable" else 0
                batches, index = sent[mark.writer_id], passed[name][mark.writer_id]
                while index < len(batches) and batches[index][0] <= seq:
                    seconds.append(now - batches[index][1])
                    index += 1
                passed[name][mark.writer_id] = index
    return took["received"], took["durable"]


if __name__ == "__main__":
    os.nice(5)
    given = sys.argv[1:]
    numbers = asyncio.run(client(Path(given[0]), given[1], int(given[2]), int(given[3]), int(given[4]), int(given[5])))
    json.dump(numbers, sys.stdout)

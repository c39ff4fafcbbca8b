"""T21 on the real daemon: strace writes down what it does to its log; the same is done again on a simulated disk."""

from __future__ import annotations

import asyncio
import bisect
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trackd_daemon.wal import frames
from trackd_proto import segment
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2

from support import crash_states, pushing, serving
from support.pushing import Writer

SEGMENT_BYTES: Final = 6_000
_CALLS: Final = "openat,pwrite64,fdatasync,fsync,ftruncate,unlink,unlinkat"
_LINE: Final = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
_RESUMED: Final = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_CALL: Final = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_PATH: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR: Final = re.compile(r"^\d+<([^>]*)>")


@dataclass
class Call:
    """One system call on the log's directory that succeeded."""

    began_s: float
    name: str
    path: Path
    data: bytes = b""
    number: int = 0
    """Offset of a write, length of a truncation."""
    is_new: bool = False


@dataclass
class Recording:
    """What the daemon did, and when its client was told what."""

    calls: list[Call] = field(default_factory=list)
    told: list[tuple[float, dict[bytes, int]]] = field(default_factory=list)
    """When, and what was known to be durable then, by writer."""
    writers: dict[bytes, Writer] = field(default_factory=dict)
    lives: list[float] = field(default_factory=list)
    """When a daemon was killed."""


def is_possible() -> bool:
    """strace is here and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


async def record(directory: Path, batches: int) -> Recording:
    """Two lives of an agent with a hub elsewhere, so that segments are removed too; killed at the end of each."""
    recording = Recording()
    hub_home, home = directory / "hub", directory / "home"
    for path in (hub_home, home):
        path.mkdir(mode=0o700)
    where, there = places.instance(home), places.instance(hub_home)
    instance.load_cookie(there)  # the agent is told where it lies before the hub has started
    address = f"127.0.0.1:{serving.free_port()}"
    with serving.serving(hub_home, "--role", "hub", "--listen", address):
        await asyncio.to_thread(serving.wait_for, lambda: serving.ready(there), "the hub")
        environ = {"TRACKD_UPSTREAM_COOKIE": str(there.cookie), "TRACKD__SEGMENT_BYTES": str(SEGMENT_BYTES)}
        writers = [Writer("recorded", route=address), Writer("recorded", route=address)]
        recording.writers = {writer.writer_id: writer for writer in writers}
        for life in (1, 2):
            await _live(where, directory / f"trace{life}", environ, writers, batches * life, recording)
    return recording


async def _live(
    where: Instance, trace: Path, environ: dict[str, str], writers: list[Writer], last: int, recording: Recording
) -> None:
    """One daemon from its start to its SIGKILL, while two writers come to seq `last`."""
    command = ["strace", "-f", "-y", "-xx", "-ttt", "-s", "1000000", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    daemon = "from trackd_daemon.cli import main; main()"
    environment = os.environ | {"TRACKD_HOME": str(where.home)} | environ
    with (where.home / "agent.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [*command, "-o", str(trace), sys.executable, "-c", daemon, "serve", "--role", "agent"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await asyncio.to_thread(serving.wait_for, lambda: serving.ready(where), "the agent")
        published = instance.read_published(where)
        assert published is not None
        link = await instance.connect(where)
        await _push(link, writers, last, recording)
        await link.channel.close()
        os.kill(published.pid, signal.SIGKILL)
        recording.lives.append(time.time())
    finally:
        if process.poll() is None:
            process.terminate()
        await asyncio.to_thread(process.wait, 20)
    recording.calls += _parse(trace, where.wal)


async def _push(link: instance.Link, writers: list[Writer], last: int, recording: Recording) -> None:
    """Small batches of both at once, several of them between two syncs; half of them wait for what came before."""
    marks = await pushing.resume(link, writers)
    chance = random.Random(last)
    nexts = {writer.writer_id: marks[writer.writer_id].received + 1 for writer in writers}
    known = {writer.writer_id: marks[writer.writer_id].durable for writer in writers}
    recording.told.append((time.time(), dict(known)))
    call = link.ingest.Push()
    while any(known[w] < last for w in nexts):
        burst = []
        for writer in writers:
            for _ in range(chance.randrange(1, 4)):
                first, end = nexts[writer.writer_id], min(nexts[writer.writer_id] + chance.randrange(1, 5), last + 1)
                if first < end:
                    burst.append(writer.batch(first, end - 1))
                    nexts[writer.writer_id] = end
        if burst:
            await call.write(ingest_pb2.PushRequest(batches=burst))
        if not burst or chance.random() < 0.5:
            reply = await asyncio.wait_for(call.read(), 60)
            for mark in reply.watermarks:
                known[mark.writer_id] = max(known[mark.writer_id], mark.durable)
            recording.told.append((time.time(), dict(known)))
    call.cancel()


def _parse(trace: Path, wal: Path) -> list[Call]:
    calls: list[Call] = []
    for began_s, text in _whole_lines(trace):
        found = _CALL.match(text)
        if found is None or int(found[3]) < 0:
            continue
        if (call := _understand(began_s, found[1], found[2], int(found[3]))) is not None:
            is_names = call.path == wal and call.name in ("fsync", "fdatasync")
            if is_names or (call.path.parent == wal and call.path.suffix == ".wal"):
                calls.append(call)
    calls.sort(key=lambda call: call.began_s)
    return calls


def _whole_lines(trace: Path) -> Iterator[tuple[float, str]]:
    """Calls that were interrupted by another thread's, put together."""
    begun: dict[str, tuple[float, str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        thread, at_s, text = found[1], float(found[2]), found[3]
        if text.endswith("<unfinished ...>"):
            begun[thread] = (at_s, text.removesuffix("<unfinished ...>").rstrip())
        elif (resumed := _RESUMED.match(text)) is not None:
            if thread in begun:
                at_s, start = begun.pop(thread)
                yield at_s, start + resumed[2]
        else:
            yield at_s, text


def _understand(began_s: float, name: str, arguments: str, result: int) -> Call | None:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _PATH.findall(arguments)]
    descriptor = _DESCRIPTOR.match(arguments)
    if name == "openat" and texts and "O_CREAT" in arguments:
        return Call(began_s, "open", Path(os.fsdecode(texts[0])), is_new=True)
    if name in ("unlink", "unlinkat") and texts:
        return Call(began_s, "unlink", Path(os.fsdecode(texts[-1])))
    if descriptor is None:
        return None
    path = Path(os.fsdecode(bytes.fromhex(descriptor[1].replace("\\x", ""))))
    if name == "pwrite64" and texts:
        return Call(began_s, "pwrite", path, texts[0][:result], int(arguments.rsplit(",", 1)[1]))
    if name == "ftruncate":
        return Call(began_s, "truncate", path, number=int(arguments.rsplit(",", 1)[1]))
    return Call(began_s, name, path) if name in ("fsync", "fdatasync") else None


def replay(recording: Recording, wal: Path, rng: random.Random) -> list[crash_states.Moment]:
    """The same calls on a simulated disk in `wal`. What had been promised at a moment is what the client had been told
    when the next call began; what the hub has is what the acks in the log say."""
    disk = crash_states.Recorder(rng)
    wal.mkdir(mode=0o700)
    descriptors: dict[Path, int] = {}
    times = [at_s for at_s, _ in recording.told]
    for call, following in zip(recording.calls, [*recording.calls[1:], None], strict=False):
        told = bisect.bisect_left(times, following.began_s) if following is not None else len(times)
        path = wal / call.path.name
        before = len(disk.moments)
        if call.name == "open":
            descriptors[path] = disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        elif call.name == "unlink":
            disk.unlink(path)
        elif call.path.suffix != ".wal":
            disk.sync_directory(wal)
        elif call.name == "pwrite":
            disk.pwrite(descriptors[path], call.data, call.number)
            _note_acks(path, disk.committed)
        elif call.name == "truncate":
            disk.truncate(descriptors[path], call.number)
        else:
            disk.sync(descriptors[path])
        for moment in disk.moments[before:]:
            moment.durable = dict(recording.told[told - 1][1]) if told else {}
            moment.committed = dict(disk.committed)
    disk.crash()
    return disk.moments


def _note_acks(path: Path, committed: dict[bytes, int]) -> None:
    for frame in segment.scan(path.read_bytes()):
        if isinstance(frame, segment.Frame) and frame.type == segment.ACK:
            for writer_id, seq in frames.decode_acks(frame.payload):
                committed[writer_id] = max(seq, committed.get(writer_id, 0))


def expected(recording: Recording) -> crash_states.Expected:
    """The records that were pushed."""
    return lambda writer_id, seq: recording.writers[writer_id].record(seq)


def states(recording: Recording, directory: Path, tally: crash_states.Tally, samples: int) -> None:
    """The states of a recording, judged."""
    moments = replay(recording, directory / "wal", random.Random(1))
    route = next(iter(recording.writers.values())).route
    judge = crash_states.States(
        directory / "wal", expected(recording), tally, random.Random(2), segment_bytes=SEGMENT_BYTES, route=route
    )
    judge.try_all(moments, samples)

"""`trackd flush`: send what was logged offline or left behind, and say the truth about whether it has arrived."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import DecodeError
from grpc import aio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from trackd_proto import segment
from trackd_proto.layout import Instance
from trackd_proto.limits import MIB
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import VERSION

from trackd_daemon.cli import hub, wishes

_REQUEST_BYTES: Final = 1 * MIB
_WINDOW_RECORDS: Final = 500_000
"""Sent and not durable yet; the daemon bounds its memory itself, this bounds ours."""
_STALLED_S: Final = 30.0
_EMBEDDED: Final = "embedded"
_ADOPT_S: Final = 60.0
_WRITER: Final = re.compile("[0-9a-f]{32}")


def register(app: typer.Typer) -> None:
    """Add flush to the command line."""
    app.command("flush")(flush)


def flush(
    directories: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Directories of offline runs.", exists=True)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what this user's processes have left behind (the default without DIR).")
    ] = False,
    wait_s: Annotated[
        float | None,
        typer.Option("--wait", min=0, help="Longest wait for the hub, in seconds. Not given: as long as it gets on."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Send offline runs and left-over data. Exits with 0 only when the hub has committed all of it.

    Running it twice, or again after it was killed, sends nothing twice.
    """
    settings = hub.load_settings()
    where = places.instance(settings.home_path())
    try:
        streams = [Stream(path) for directory in directories or [] for path in offline_files(directory)]
    except (OSError, ValueError) as error:
        hub.fail(str(error))
    if directories and not streams and not everything:
        hub.fail(f"no offline data (*.wal) under {', '.join(map(str, directories))}")
    deadline = None if wait_s is None else time.monotonic() + wait_s
    try:
        places.prepare(where)
        left_behind = "" if directories and not everything else adopt(where)
        report = asyncio.run(_flush(where, settings, streams, deadline, everything or not directories))
    except (OSError, RuntimeError, ValueError) as error:
        hub.fail(str(error))
    if left_behind:
        report.problems.append(left_behind)
    _tell(report, as_json)
    raise typer.Exit(0 if report.is_complete else 1)


@dataclass
class Report:
    """What became of it."""

    sent_records: int = 0
    committed_records: int = 0
    pending_records: int = 0
    problems: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """Runs that are not what `init(resume=...)` asked for; their data is sent all the same."""

    @property
    def is_complete(self) -> bool:
        """The hub has everything."""
        return self.pending_records == 0 and not self.problems


class Stream:
    """One offline file: the records of one writer.

    Raises ValueError if it holds another's too: taken for one writer's, their records would be declared lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer_id = b""
        self.last_seq = 0
        self.next_seq = 1
        self.committed = 0
        self.durable = 0
        self.start: wishes.Start | None = None
        with _opened(path) as (read, size):
            for found in segment.scan_with(read, size):
                if batch := _batch_of(found):
                    self.writer_id = self.writer_id or batch.writer_id
                    if batch.writer_id != self.writer_id:
                        raise ValueError(f"{path} is no offline run: it holds records of several writers")
                    if batch.first_seq == 1 and not batch.loss_reason:
                        self.start = wishes.start_of(batch)
                    self.last_seq = max(self.last_seq, batch.first_seq + batch.count - 1)

    def requests(self, upstream: str) -> Iterator[ingest_pb2.PushRequest]:
        """What the daemon does not have yet, from `next_seq` on; holes are declared lost."""
        batches: list[ingest_pb2.Batch] = []
        size = 0
        with _opened(self.path) as (read, length):
            for found in segment.scan_with(read, length):
                batch = _batch_of(found)
                if batch is None or batch.first_seq + batch.count <= self.next_seq:
                    continue
                if batch.route in ("", _EMBEDDED):
                    batch.route = upstream or _EMBEDDED
                if batch.first_seq > self.next_seq:
                    batches.append(_loss(batch, self.next_seq))
                batches.append(batch)
                self.next_seq = batch.first_seq + batch.count
                size += len(batch.data)
                if size >= _REQUEST_BYTES:
                    yield ingest_pb2.PushRequest(batches=batches)
                    batches, size = [], 0
        if batches:
            yield ingest_pb2.PushRequest(batches=batches)

    @property
    def pending(self) -> int:
        """Records that the hub has not committed, as far as known."""
        return max(self.last_seq - self.committed, 0)


def offline_files(directory: Path) -> list[Path]:
    """The offline files of a run's directory or of a directory of runs, or the file itself.

    They are named after their writers. Under a home there are others: an agent's log, DuckDB's.
    """
    if directory.is_file():
        return [directory]
    return sorted(path for path in directory.rglob("*.wal") if _WRITER.fullmatch(path.stem))


def adopt(where: Instance) -> str:
    """Have the spools of dead processes handed to the daemon; what is wrong, "" if nothing is left."""
    if not where.spool.is_dir() or not any(where.spool.iterdir()):
        return ""
    command = [sys.executable, "-m", "trackd.courier.main", "--adopt", str(where.directory)]
    try:
        done = subprocess.run(command, check=False, timeout=_ADOPT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"spools under {where.spool} were not handed on within {_ADOPT_S:.0f} s"
    return "" if done.returncode == 0 else f"some spools under {where.spool} could not be handed on"


async def _flush(
    where: Instance, settings: Settings, streams: Sequence[Stream], deadline: float | None, everything: bool
) -> Report:
    report = Report()
    link = await instance.reach(where, client=f"cli/{VERSION}")
    try:
        streams = [stream for stream in streams if stream.writer_id]
        if streams:
            await _learn(link, streams)
            starts = {stream.writer_id: stream.start for stream in streams if stream.start}
            new = [starts[s.writer_id] for s in streams if s.writer_id in starts and not max(s.durable, s.committed)]
            report.conflicts = await asyncio.to_thread(
                wishes.conflicts, settings, list(starts.values()), lambda start: start in new
            )
            await _send(link, settings.upstream, streams, deadline)
        waiting = [] if everything else [stream.writer_id for stream in streams]
        if everything:
            left = 3600.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
            reply = await link.control.Flush(
                ingest_pb2.FlushRequest(timeout_s=min(left, _STALLED_S), writer_ids=waiting)
            )
            report.pending_records += reply.pending_records
            if reply.pending_records:
                report.problems.append(reply.reason or "the hub has not committed everything")
        else:
            report.pending_records += sum(stream.pending for stream in streams)
            if report.pending_records:
                reply = await link.control.Flush(ingest_pb2.FlushRequest(timeout_s=0, writer_ids=waiting))
                report.problems.append(reply.reason or "the hub has not committed everything in time")
    finally:
        await link.channel.close(None)
    report.sent_records = sum(stream.last_seq for stream in streams)
    report.committed_records = report.sent_records - sum(stream.pending for stream in streams)
    return report


async def _learn(link: instance.Link, streams: Sequence[Stream]) -> None:
    """Ask what is there already."""
    by_writer = {stream.writer_id: stream for stream in streams}
    resume = ingest_pb2.ResumeRequest(writer_ids=list(by_writer))
    for mark in (await link.ingest.Resume(resume, timeout=30)).watermarks:
        _note(by_writer, mark)


async def _send(link: instance.Link, upstream: str, streams: Sequence[Stream], deadline: float | None) -> None:
    """Push the streams and follow the hub's commits until all are in, time is up, or nothing moves any more."""
    by_writer = {stream.writer_id: stream for stream in streams}
    for stream in streams:
        stream.next_seq = max(stream.durable, stream.committed) + 1
    call = link.ingest.Push()
    moved = asyncio.Event()
    moved.set()

    async def listen() -> None:
        while (reply := await call.read()) is not aio.EOF:  # type: ignore[attr-defined]
            for mark in reply.watermarks:
                _note(by_writer, mark)
            moved.set()

    listener = asyncio.create_task(listen())
    try:
        with _progress() as progress:
            bar = progress.add_task("committed", total=sum(stream.last_seq for stream in streams))

            def show() -> None:
                progress.update(bar, completed=sum(stream.last_seq - stream.pending for stream in streams))

            # All writers are announced: one whose records the daemon has already is heard of as well.
            await call.write(ingest_pb2.PushRequest(live=list(by_writer)))
            for stream in streams:
                for request in stream.requests(upstream):
                    while stream.next_seq - 1 - max(stream.durable, stream.committed) > _WINDOW_RECORDS:
                        if not await _moved(moved, listener, deadline):
                            return
                        show()
                    await call.write(request)
            while any(stream.pending for stream in streams):
                if not await _moved(moved, listener, deadline):
                    return
                show()
            show()
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        call.cancel()


async def _moved(moved: asyncio.Event, listener: "asyncio.Task[None]", deadline: float | None) -> bool:
    """Wait for a watermark; False if time is up or nothing has moved for long. Raises what ended the connection."""
    left = _STALLED_S if deadline is None else min(deadline - time.monotonic(), _STALLED_S)
    waiter = asyncio.create_task(moved.wait())
    try:
        done, _ = await asyncio.wait({waiter, listener}, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
        if listener in done:
            listener.result()
            raise ConnectionError("the daemon ended the connection; run flush again")
        moved.clear()
        return waiter in done
    finally:
        waiter.cancel()


def _note(by_writer: dict[bytes, Stream], mark: ingest_pb2.Watermark) -> None:
    if stream := by_writer.get(mark.writer_id):
        stream.durable = max(stream.durable, mark.durable)
        stream.committed = max(stream.committed, mark.committed)


def _loss(before: ingest_pb2.Batch, first_seq: int) -> ingest_pb2.Batch:
    """The declaration that the records from `first_seq` up to this batch were damaged."""
    return ingest_pb2.Batch(
        writer_id=before.writer_id,
        first_seq=first_seq,
        count=before.first_seq - first_seq,
        loss_reason="damaged",
        route=before.route,
        project=before.project,
        run_id=before.run_id,
    )


def _batch_of(found: segment.Frame | segment.Damage) -> ingest_pb2.Batch | None:
    if isinstance(found, segment.Damage) or found.type not in (segment.DATA, segment.LOSS):
        return None
    try:
        return ingest_pb2.Batch.FromString(found.payload)
    except DecodeError:
        return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[segment.Read, int]]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda offset, size: os.pread(descriptor, size, offset), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _progress() -> Progress:
    parts = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("records")
    return Progress(*parts, TimeRemainingColumn(), console=hub.err, transient=True, disable=not hub.err.is_terminal)


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        answer: dict[str, Any] = {
            "committed": report.is_complete,
            "records": report.sent_records,
            "committed_records": report.committed_records,
            "pending_records": report.pending_records,
            "problems": report.problems,
            "conflicts": report.conflicts,
        }
        hub.print_json(answer)
        return
    for problem in [*report.conflicts, *report.problems]:
        typer.echo(f"warning: {problem}", err=True)
    if report.is_complete:
        typer.echo(f"everything is committed ({report.committed_records} records of offline runs)")
    else:
        typer.echo(f"{report.pending_records} records are not committed yet; run trackd flush again", err=True)

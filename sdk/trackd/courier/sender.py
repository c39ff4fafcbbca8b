"""Delivery of online lanes: one connection to the daemon, kept for ever, and what goes over it."""

import asyncio
import contextlib
import os
import random
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from grpc import aio
from trackd_proto import layout, limits, spool
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import VERSION

from trackd import messages
from trackd.courier.lanes import SpoolLane
from trackd.courier.tail import Item

_LIVE_S: Final = 5.0
_ASK_S: Final = 1.0
_TICKET_S: Final = 600.0
_REQUEST_BYTES: Final = 1 * limits.MIB
_RETRY_S: Final = (0.02, 5.0)


class Sender:
    """Pushes the lanes' records and takes the watermarks back. Reconnects without end; loses nothing by it."""

    def __init__(self, where: layout.Instance) -> None:
        self._where = where
        self._lanes: dict[bytes, SpoolLane] = {}
        self._link: instance.Link | None = None
        self._call: Any = None
        self._replies: asyncio.Task[None] | None = None
        self._next_try = 0.0
        self._backoff = _RETRY_S[0]
        self._said_live = 0.0
        self._asked = 0.0
        self._ticket_at = 0.0
        self._ticket = ""
        self._run_urls: dict[bytes, tuple[str, str, str]] = {}
        self.trouble = ""
        """Why there is no connection, for people."""
        self.is_outdated = False
        """There will be none: a newer trackd's daemon does not serve this courier, or wrote what ours cannot read."""

    def add(self, lane: SpoolLane) -> None:
        """Serve this lane from now on."""
        self._lanes[lane.writer_id] = lane

    def drop(self, lane: SpoolLane) -> None:
        """Serve it no longer."""
        self._lanes.pop(lane.writer_id, None)
        self._run_urls.pop(lane.writer_id, None)

    async def pump(self) -> int:
        """One round: connect if need be, send what there is. Bytes of records that were sent."""
        if self._call is None and not await self._connect():
            return 0
        sent = 0
        try:
            self._ask_again()
            await self._resume_new()
            while request := self._collect():
                await self._call.write(request)
                sent += sum(len(batch.data) for batch in request.batches)
            if time.monotonic() - self._said_live > _LIVE_S:
                self._said_live = time.monotonic()
                live = [w for w, lane in self._lanes.items() if not lane.word(spool.CLOSED) and not lane.is_over()]
                if live:
                    await self._call.write(ingest_pb2.PushRequest(live=live))
            return sent
        except (aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError) as error:
            await self._lose_connection(error)
            return sent

    async def close(self) -> None:
        """End the connection."""
        await self._disconnect()

    # -- the connection ---------------------------------------------------------------------------------------------

    async def _connect(self) -> bool:
        if time.monotonic() < self._next_try:
            return False
        try:
            self._link = await instance.reach(self._where, client=f"courier/{VERSION}")
            self._call = self._link.ingest.Push()
            self._replies = asyncio.create_task(self._read_replies(self._call))
        except (OSError, RuntimeError, ValueError, aio.AioRpcError) as error:
            await self._lose_connection(error)
            self.is_outdated = isinstance(error, (instance.VersionMismatchError, instance.OutdatedError))
            return False
        self.trouble = ""
        for lane in self._lanes.values():
            lane.is_resumed = False
        return True

    async def _lose_connection(self, error: BaseException) -> None:
        details = error.details() if isinstance(error, aio.AioRpcError) else str(error)
        self.trouble = f"{type(error).__name__}: {details}"
        await self._disconnect()
        self._next_try = time.monotonic() + self._backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._backoff = min(self._backoff * 2, _RETRY_S[1])

    async def _disconnect(self) -> None:
        call, self._call = self._call, None
        if self._replies is not None:
            self._replies.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._replies
            self._replies = None
        if call is not None:
            call.cancel()
        if self._link is not None:
            link, self._link = self._link, None
            await link.channel.close(None)

    def _ask_again(self) -> None:
        """The next hop tells of the writers that a connection brings; of others it must be asked while it matters."""
        if time.monotonic() - self._asked < _ASK_S:
            return
        self._asked = time.monotonic()
        for lane in self._lanes.values():
            if lane.is_untold and not lane.flight.is_empty():
                lane.is_resumed = False

    async def _resume_new(self) -> None:
        new = [lane for lane in self._lanes.values() if not lane.is_resumed]
        if not new or self._link is None:
            return
        reply = await self._link.ingest.Resume(
            ingest_pb2.ResumeRequest(writer_ids=[lane.writer_id for lane in new]), timeout=10
        )
        known = {mark.writer_id: mark for mark in reply.watermarks}
        for lane in new:
            mark = known.get(lane.writer_id, ingest_pb2.Watermark())
            lane.advance(mark.received, mark.durable, mark.committed)
            lane.resume(max(mark.received, mark.committed) + 1)

    # -- sending ----------------------------------------------------------------------------------------------------

    def _collect(self) -> ingest_pb2.PushRequest | None:
        batches, size = [], 0
        for lane in self._lanes.values():
            if not lane.has_files:
                continue
            for item in _items(lane):
                batches.append(_to_batch(lane, item))
                lane.flight.add(item)
                lane.is_untold = False
                size += len(item.data)
                if size >= _REQUEST_BYTES:
                    return ingest_pb2.PushRequest(batches=batches)
        return ingest_pb2.PushRequest(batches=batches) if batches else None

    # -- receiving --------------------------------------------------------------------------------------------------

    async def _read_replies(self, call: Any) -> None:
        try:
            async for reply in call:
                self._backoff = _RETRY_S[0]
                self._take(reply)
                for notice in reply.notices:
                    await self._notice(notice)
        except aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                self.trouble = error.details() or error.code().name
        except Exception as error:  # a bug of ours must not leave a connection that nobody listens to
            traceback.print_exc()
            self.trouble = f"{type(error).__name__}: {error}"
        if self._call is call:
            self._call = None  # pump() connects again
            self._next_try = time.monotonic() + self._backoff
            self._backoff = min(self._backoff * 2, _RETRY_S[1])

    def _take(self, reply: ingest_pb2.PushReply) -> None:
        for mark in reply.watermarks:
            if lane := self._lanes.get(mark.writer_id):
                lane.advance(mark.received, mark.durable, mark.committed)
        for gap in reply.gaps:
            if lane := self._lanes.get(gap.writer_id):
                lane.resume(gap.expected)

    async def _notice(self, notice: ingest_pb2.Notice) -> None:
        lane = self._lanes.get(notice.writer_id)
        if lane is None:
            return
        if notice.stop:
            lane.set_word(spool.STOP, 1)
        if notice.run_url:
            before = self._run_urls.get(lane.writer_id)
            ticket = await self._fresh_ticket(notice.run_url)
            if self._lanes.get(lane.writer_id) is not lane:
                return  # it is done meanwhile, and its head is closed
            now = (notice.run_url, notice.project_url, ticket)
            if now != before:
                self._run_urls[lane.writer_id] = now
                lane.set_links(spool.Links(notice.run_url, notice.project_url, ticket, notice.message))
            if before is None and lane.target.announce:
                announce(lane, notice.run_url, notice.project_url, ticket)
        elif notice.message and lane.writer_id not in self._run_urls:
            self._run_urls[lane.writer_id] = ("", "", "")
            lane.set_links(spool.Links(message=notice.message))

    async def _fresh_ticket(self, run_url: str) -> str:
        """A ticket of the hub in the daemon beside us; none for a hub elsewhere."""
        if self._link is None:
            return ""
        try:
            reply = await self._link.control.Ticket(ingest_pb2.TicketRequest(), timeout=5)
        except aio.AioRpcError:
            return ""
        # Asked for, not taken from Hello: a daemon that was just spawned has no hub yet when we connect.
        return str(reply.ticket) if run_url.startswith(reply.base_url + "/") else ""

    async def refresh_tickets(self) -> None:
        """Keep the links of live runs usable: finish() prints them again, days later."""
        if self._link is None or time.monotonic() < self._ticket_at:
            return
        self._ticket_at = time.monotonic() + _TICKET_S
        for writer_id, (run_url, project_url, ticket) in list(self._run_urls.items()):
            lane = self._lanes.get(writer_id)
            if lane is None or not ticket:
                continue
            fresh = await self._fresh_ticket(run_url)
            self._run_urls[writer_id] = (run_url, project_url, fresh)
            lane.set_links(spool.Links(run_url, project_url, fresh))


def announce(lane: SpoolLane, run_url: str, project_url: str, ticket: str) -> None:
    """Print the links on the trainer's terminal, opening it for this moment only."""
    suffix = f"#ticket={ticket}" if ticket else ""
    text = f"trackd: run     {lane.target.name or lane.target.run_id}: {run_url}{suffix}\n"
    text += f"trackd: project {lane.target.project}: {project_url}\n" if project_url else ""
    if forward := messages.ssh_line(run_url):
        text += f"trackd: from your own machine first: {forward}\n"
    print_for(lane, text)


def print_for(lane: SpoolLane, text: str) -> None:
    """Print on the trainer's terminal if that can be done without harm."""
    try:
        _write_to_stderr(lane.owner.pid, text.encode())
    except (OSError, ValueError) as error:
        print(f"courier: cannot print on the trainer's terminal: {error}", file=sys.stderr)


def _write_to_stderr(pid: int, text: bytes) -> None:
    """A line on another process's standard error: a terminal, a pipe, or a file that is being appended to.

    In a file written at an offset (`2> log`) the trainer's next line would land on top of ours, or ours on its lines:
    there only finish() prints the links.
    """
    flags = Path(f"/proc/{pid}/fdinfo/2").read_text(encoding="ascii").split("flags:")[1].split()[0]
    target = f"/proc/{pid}/fd/2"
    if stat.S_ISREG(os.stat(target).st_mode) and not int(flags, 8) & os.O_APPEND:  # noqa: PTH116
        return
    # Never O_CREAT or O_TRUNC: the file is the user's. O_NONBLOCK: a full pipe nobody reads is not waited for.
    descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def _items(lane: SpoolLane) -> Iterator[Item]:
    while item := lane.next_item():
        yield item


def _to_batch(lane: SpoolLane, item: Item) -> ingest_pb2.Batch:
    target = lane.target
    return ingest_pb2.Batch(
        writer_id=lane.writer_id,
        first_seq=item.first_seq,
        count=item.count,
        raw_bytes=len(item.data),
        data=item.data,
        loss_reason=item.reason,
        route=target.route,
        project=target.project,
        run_id=target.run_id,
    )

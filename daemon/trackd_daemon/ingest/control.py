"""The Control service: how is it going, hand everything on, leave."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

_LOOK_S: Final = 0.02


class Control(ingest_pb2_grpc.ControlServicer):
    """Control for the command line and for the trainer's courier."""

    def __init__(
        self,
        *,
        status: Callable[[], ingest_pb2.StatusReply],
        pending: Callable[[Sequence[bytes]], int],
        why_pending: Callable[[], str],
        hurry: Callable[[], None],
        stop: Callable[[float], None],
        ticket: Callable[[], Awaitable[tuple[str, str, float] | None]],
    ) -> None:
        """`pending`: records not committed (of these writers; none: of all). `hurry`: try to send now, not later."""
        self._status = status
        self._pending = pending
        self._why_pending = why_pending
        self._hurry = hurry
        self._stop = stop
        self._ticket = ticket

    async def Status(self, request: ingest_pb2.StatusRequest, context: Any) -> ingest_pb2.StatusReply:
        """See the proto."""
        return self._status()

    async def Flush(self, request: ingest_pb2.FlushRequest, context: Any) -> ingest_pb2.FlushReply:
        """See the proto."""
        left = await self._wait(list(request.writer_ids), request.timeout_s)
        return ingest_pb2.FlushReply(
            committed=not left, pending_records=left, reason=self._why_pending() if left else ""
        )

    async def Drain(self, request: ingest_pb2.DrainRequest, context: Any) -> ingest_pb2.DrainReply:
        """See the proto."""
        left = await self._wait([], request.timeout_s)
        # A little later, so that this reply gets out.
        asyncio.get_running_loop().call_later(0.05, self._stop, 1.0)
        return ingest_pb2.DrainReply(pending_records=left)

    async def Ticket(self, request: ingest_pb2.TicketRequest, context: Any) -> ingest_pb2.TicketReply:
        """See the proto."""
        issued = await self._ticket()
        if issued is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is no dashboard in this process")
            raise AssertionError("abort raises")
        ticket, url, expires_s = issued
        return ingest_pb2.TicketReply(ticket=ticket, base_url=url, expires_s=expires_s)

    async def _wait(self, writer_ids: list[bytes], timeout_s: float) -> int:
        """Records still pending when everything is committed or time is up."""
        deadline = time.monotonic() + max(timeout_s, 0.0)
        self._hurry()
        # A command's wait, not a data path: looking 50 times a second is simpler than one more kind of listener.
        while (left := self._pending(writer_ids)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return left

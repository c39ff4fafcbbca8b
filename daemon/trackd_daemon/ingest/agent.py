"""The Ingest service of an agent: batches go into the write-ahead log, watermarks come back."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

import grpc
from trackd_proto.batch import BatchError
from trackd_proto.compress import CompressionError
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

from trackd_daemon.ingest import marks
from trackd_daemon.ingest.access import Greeter
from trackd_daemon.ingest.pressure import Pressure
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_daemon.ingest.trimming import trim

WAITING_BYTES: Final = 8 * MIB
"""Batches in memory that are not in the log yet. Above it no stream is read: the senders keep their data."""


class Log(Protocol):
    """Where accepted batches go."""

    def append(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """Hand in batches, in order per writer."""


class AgentIngest(ingest_pb2_grpc.IngestServicer):
    """Ingest for couriers and the command line. Lives in one event loop."""

    def __init__(self, greeter: Greeter, ledger: marks.Ledger, log: Log, sessions: Sessions) -> None:
        self.sessions = sessions
        self.on_live: Callable[[Sequence[bytes]], None] = lambda _writers: None
        """Told which writers' processes are alive."""
        self.on_accepted: Callable[[], None] = lambda: None
        """Told that batches are waiting for the log."""
        self.pressure = Pressure()
        self._greeter = greeter
        self._ledger = ledger
        self._log = log
        self._waiting_bytes = 0
        self._waiting: dict[str, deque[ingest_pb2.Batch]] = {}
        self._is_log_full = False
        self._stuck: Sequence[ingest_pb2.Batch] = ()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def taken(self, size: int) -> None:
        """So many bytes have left memory for the log, or were committed without it."""
        for route, waiting in list(self._waiting.items()):
            while waiting and self._ledger.marks(waiting[0].writer_id).received >= _last_seq(waiting[0]):
                waiting.popleft()
            if not waiting:
                del self._waiting[route]
        self._waiting_bytes -= size
        if self._waiting_bytes < WAITING_BYTES:
            self._has_room.set()

    def log_takes(self, *, nothing: bool, stuck: Sequence[ingest_pb2.Batch]) -> None:
        """Whether the log takes `nothing` at the moment, and what it holds in memory only (`Progress.stuck`)."""
        self._is_log_full = nothing or bool(stuck)
        self._stuck = stuck

    def overflow(self, route: str) -> list[ingest_pb2.Batch]:
        """What follows the durable log of a route and cannot get into it, in order per writer; usually nothing."""
        if not self._is_log_full:
            return []
        return [*(batch for batch in self._stuck if batch.route == route), *self._waiting.get(route, ())]

    def waiting_writers(self) -> set[bytes]:
        """Those of which something is in memory and not in the log."""
        return {batch.writer_id for waiting in self._waiting.values() for batch in waiting}

    def overflowing(self) -> set[str]:
        """The routes of which there is an `overflow`."""
        return {*(batch.route for batch in self._stuck), *self._waiting} if self._is_log_full else set()

    async def Hello(self, request: ingest_pb2.HelloRequest, context: Any) -> ingest_pb2.HelloReply:
        """See the proto."""
        return await self._greeter.hello(request, context)

    async def Resume(self, request: ingest_pb2.ResumeRequest, context: Any) -> ingest_pb2.ResumeReply:
        """See the proto."""
        return ingest_pb2.ResumeReply(watermarks=[self._mark(writer_id) for writer_id in request.writer_ids])

    async def Push(  # type: ignore[override]
        self, request_iterator: AsyncIterator[ingest_pb2.PushRequest], context: Any
    ) -> None:
        """See the proto. After the client's last request the stream ends when all of it is durable."""
        session = self.sessions.open()
        reader = asyncio.create_task(self._read(request_iterator, session))
        writer = asyncio.create_task(session.run(context, self._mark, self._is_settled))
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except (marks.InvalidBatchError, BatchError, CompressionError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self.sessions.close(session)
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[ingest_pb2.PushRequest], session: Session) -> None:
        async for request in requests:
            await self._has_room.wait()
            self._take(request, session)
        session.is_over = True
        session.wake.set()

    def _is_settled(self, session: Session) -> bool:
        """Everything that the stream brought is durable or committed."""
        known = [self._ledger.marks(writer_id) for writer_id in session.writers]
        return all(max(m.durable, m.committed) >= m.accepted for m in known)

    def _take(self, request: ingest_pb2.PushRequest, session: Session) -> None:
        accepted: list[ingest_pb2.Batch] = []
        try:
            for batch in request.batches:
                self._judge(batch, session, accepted)
        finally:
            # What came before a batch that makes no sense is accepted: sent again, it would be taken for a duplicate.
            if accepted:
                self._hand_on(accepted)
        if request.live:
            for writer_id in request.live:
                if writer_id not in session.writers:
                    session.changed.add(writer_id)  # it may have come further since the client asked
                self.sessions.join(session, writer_id)
            self.on_live(list(request.live))
        if not session.is_idle():
            session.wake.set()

    def _judge(self, batch: ingest_pb2.Batch, session: Session, accepted: list[ingest_pb2.Batch]) -> None:
        """Add what is new of it to `accepted`. Raises InvalidBatchError, BatchError, CompressionError."""
        size = batch.raw_bytes if batch.codec else len(batch.data)
        marks.check(batch.writer_id, batch.first_seq, batch.count, size, batch.loss_reason)
        self.sessions.join(session, batch.writer_id)
        verdict, expected = self._ledger.judge(batch.writer_id, batch.first_seq, batch.count)
        if verdict in (marks.Verdict.TAKE, marks.Verdict.TRIM):
            accepted.append(batch if verdict is marks.Verdict.TAKE else trim(batch, expected))
            owner = (batch.route, batch.project, batch.run_id)
            self._ledger.accept(batch.writer_id, _last_seq(batch), owner)
            self._ledger.lost_records += accepted[-1].count if batch.loss_reason else 0
            self._waiting.setdefault(batch.route, deque()).append(accepted[-1])
        elif verdict is marks.Verdict.GAP:
            session.gaps[batch.writer_id] = expected
        else:
            session.changed.add(batch.writer_id)

    def _hand_on(self, accepted: Sequence[ingest_pb2.Batch]) -> None:
        size = sum(len(batch.data) for batch in accepted)
        self._waiting_bytes += size
        self.pressure.add(time.monotonic(), size)
        if self._waiting_bytes >= WAITING_BYTES:
            self._has_room.clear()
        self._log.append(accepted)
        self.on_accepted()

    def _mark(self, writer_id: bytes) -> ingest_pb2.Watermark:
        known = self._ledger.marks(writer_id)
        return ingest_pb2.Watermark(
            writer_id=writer_id, received=known.received, durable=known.durable, committed=known.committed
        )


def _last_seq(batch: ingest_pb2.Batch) -> int:
    return batch.first_seq + batch.count - 1

"""The Ingest service of a hub: batches are committed to its stores, and only then acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Sequence
from typing import Any, Final

import grpc
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.ingest import marks
from trackd_daemon.ingest.access import Greeter
from trackd_daemon.ingest.committer import Committer
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_daemon.model import Outcome

WAITING_BYTES: Final = 16 * MIB
"""Compressed batches in memory that are not committed yet. Above it no stream is read."""


class HubIngest(ingest_pb2_grpc.IngestServicer):
    """Ingest for agents (and for couriers beside a hub). Lives in one event loop."""

    def __init__(self, greeter: Greeter, committer: Committer, sessions: Sessions) -> None:
        self.sessions = sessions
        self.on_live: Callable[[Sequence[bytes]], None] = lambda _writers: None
        """Told which writers' processes are alive."""
        self.on_committed: Callable[[Sequence[bytes]], None] = lambda _writers: None
        """Told which writers got something committed."""
        self._greeter = greeter
        self._committer = committer
        self._committed: dict[bytes, int] = {}
        self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def Hello(self, request: ingest_pb2.HelloRequest, context: Any) -> ingest_pb2.HelloReply:
        """See the proto."""
        return await self._greeter.hello(request, context)

    async def Resume(self, request: ingest_pb2.ResumeRequest, context: Any) -> ingest_pb2.ResumeReply:
        """See the proto."""
        try:
            expected = await asyncio.wrap_future(self._committer.resume(list(request.writer_ids)))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError("abort raises") from error
        for writer_id, seq in expected.items():
            self._note(writer_id, seq - 1)
        return ingest_pb2.ResumeReply(watermarks=[self._mark(writer_id) for writer_id in request.writer_ids])

    async def Push(  # type: ignore[override]
        self, request_iterator: AsyncIterator[ingest_pb2.PushRequest], context: Any
    ) -> None:
        """See the proto. After the client's last request the stream ends when all of it is committed."""
        session = self.sessions.open()
        pending: set[asyncio.Task[None]] = set()
        reader = asyncio.create_task(self._read(request_iterator, session, pending))
        writer = asyncio.create_task(session.run(context, self._mark, lambda _session: True))
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except marks.InvalidBatchError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StoreFullError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            self.sessions.close(session)
            reader.cancel()
            writer.cancel()
            # The commits themselves go on: they are submitted, and their batches must be counted out.
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[ingest_pb2.PushRequest], session: Session, pending: set[asyncio.Task[None]]
    ) -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        iterator = requests.__aiter__()
        next_request: asyncio.Task[Any] | None = None
        try:
            while True:
                await self._has_room.wait()
                next_request = asyncio.ensure_future(_next(iterator))
                await asyncio.wait({next_request, failed}, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
                request = next_request.result()
                if request is None:
                    break
                self._take(request, session, pending, failed)
            if pending:
                await asyncio.wait(pending)
            if failed.done():
                failed.result()
        finally:
            if next_request is not None:
                next_request.cancel()
            if not failed.cancel() and not failed.cancelled():
                failed.exception()  # it was told, or nobody is left to tell
        session.is_over = True
        session.wake.set()

    def _take(
        self,
        request: ingest_pb2.PushRequest,
        session: Session,
        pending: set[asyncio.Task[None]],
        failed: "asyncio.Future[None]",
    ) -> None:
        for batch in request.batches:
            size = batch.raw_bytes if batch.codec else len(batch.data)
            marks.check(batch.writer_id, batch.first_seq, batch.count, size, batch.loss_reason)
            self.sessions.join(session, batch.writer_id)
        for writer_id in request.live:
            self.sessions.join(session, writer_id)
        if request.live:
            self.on_live(list(request.live))
        if request.batches:
            task = asyncio.create_task(self._commit(list(request.batches), session, failed))
            pending.add(task)
            task.add_done_callback(pending.discard)

    async def _commit(self, batches: list[ingest_pb2.Batch], session: Session, failed: "asyncio.Future[None]") -> None:
        size = sum(len(batch.data) for batch in batches)
        self._waiting_bytes += size
        if self._waiting_bytes >= WAITING_BYTES:
            self._has_room.clear()
        try:
            outcomes = await asyncio.wrap_future(self._committer.submit(batches))
        except StoreError as error:
            if not failed.done():
                failed.set_exception(error)
            return
        finally:
            self._waiting_bytes -= size
            if self._waiting_bytes < WAITING_BYTES:
                self._has_room.set()
        self._answer(outcomes, session)

    def _answer(self, outcomes: dict[bytes, Outcome], session: Session) -> None:
        for writer_id, outcome in outcomes.items():
            self._note(writer_id, outcome.next_seq - 1)
            if outcome.is_gap:
                session.gaps[writer_id] = outcome.next_seq
        session.changed.update(outcomes)
        session.wake.set()
        self.sessions.changed(outcomes)
        self.on_committed(list(outcomes))

    def forget_committed(self, spoken_for: Container[bytes]) -> None:
        """Keep the marks of the writers that a stream speaks for only: whoever comes back asks with Resume."""
        self._committed = {w: seq for w, seq in self._committed.items() if w in spoken_for}

    def _note(self, writer_id: bytes, committed: int) -> None:
        self._committed[writer_id] = committed

    def _mark(self, writer_id: bytes) -> ingest_pb2.Watermark:
        committed = self._committed.get(writer_id, 0)
        return ingest_pb2.Watermark(writer_id=writer_id, received=committed, committed=committed)


async def _next(iterator: AsyncIterator[ingest_pb2.PushRequest]) -> ingest_pb2.PushRequest | None:
    """The next request, None at the end."""
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return None

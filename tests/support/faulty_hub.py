"""A real hub whose gRPC answers can be falsified: refusals, lost answers, requests that come twice or in disorder.

The interceptor stands before the hub's own ingest, so that what is taken is really committed.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from trackd_daemon import roles
from trackd_proto.local import instance
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc

METHODS = ("Hello", "Resume", "Push")


class Faults(aio.ServerInterceptor):  # type: ignore[type-arg]
    """What the hub does wrong at the moment. `fired` counts what it did."""

    def __init__(self) -> None:
        self.fired: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.heal()

    def heal(self) -> None:
        """Nothing is wrong from now on."""
        self.refusal: grpc.StatusCode | None = None
        self.details = "a fault of the test"
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.refused: Sequence[str] = METHODS
        """The methods that answer with `refusal`."""
        self.lose_answers_after = 0
        """So many requests of each Push are taken; then its answers are lost and it times out. 0: never."""
        self.repeat = 1
        """How often each request is handed to the hub."""
        self.shuffle = 1
        """So many requests are handed to the hub in reverse order."""
        self.stale_by = 0
        """Resume tells a seq that is older by so many."""
        self.poison: Callable[[ingest_pb2.Batch], bool] | None = None
        """A request with such a batch is refused whole with INVALID_ARGUMENT."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Stand in for the hub where it is at fault."""
        details: Any = handler_call_details
        method = details.method.rpartition("/")[2]
        handler = await continuation(handler_call_details)
        if method not in METHODS or handler is None:
            return handler
        self.calls[method] += 1
        if method == "Push" or handler.unary_unary is None:  # what the gate refuses is a stream, whatever was called

            async def push(requests: AsyncIterator[ingest_pb2.PushRequest], context: Any) -> None:
                await self._push(handler.stream_stream, requests, context)

            return handler._replace(stream_stream=push)

        async def unary(request: Any, context: Any) -> Any:
            return await self._unary(method, handler.unary_unary, request, context)

        return handler._replace(unary_unary=unary)

    async def _refuse(self, method: str, context: Any) -> None:
        if self.refusal is not None and method in self.refused:
            self.fired[self.refusal.name] += 1
            await context.abort(self.refusal, self.details, self.metadata)

    async def _unary(self, method: str, handler: Any, request: Any, context: Any) -> Any:
        await self._refuse(method, context)
        reply = await handler(request, context)
        if method == "Resume" and self.stale_by:
            self.fired["stale"] += 1
            for mark in reply.watermarks:
                mark.committed = max(0, mark.committed - self.stale_by)
        return reply

    async def _push(self, push: Any, requests: AsyncIterator[ingest_pb2.PushRequest], context: Any) -> None:
        await self._refuse("Push", context)
        if not self.lose_answers_after:
            await push(self._altered(requests, context), context)
            return
        wanted, taken = self.lose_answers_after, 0

        async def some() -> AsyncIterator[ingest_pb2.PushRequest]:
            nonlocal taken
            async for request in requests:
                yield request
                taken += bool(request.batches)
                if taken == wanted:
                    return

        await push(some(), _Deaf(context))  # returns when all of it is committed
        self.fired["answers lost"] += 1
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "committed, but nobody said so")

    async def _altered(
        self, requests: AsyncIterator[ingest_pb2.PushRequest], context: Any
    ) -> AsyncIterator[ingest_pb2.PushRequest]:
        held: list[ingest_pb2.PushRequest] = []
        async for request in requests:
            if self.poison is not None and any(self.poison(batch) for batch in request.batches):
                self.fired["poison"] += 1
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this record is poison")
            for part in _parts(request) if self.shuffle > 1 else [request]:
                held.append(part)
                if len(held) < self.shuffle and part.batches:
                    continue
                self.fired["reordered"] += len(held) > 1
                for one in reversed(held):
                    self.fired["repeated"] += self.repeat - 1
                    for _ in range(self.repeat):
                        yield one
                held.clear()


def _parts(request: ingest_pb2.PushRequest) -> list[ingest_pb2.PushRequest]:
    """One request per batch: requests hold many, and only what is apart can be out of order."""
    parts = [ingest_pb2.PushRequest(batches=[batch]) for batch in request.batches]
    return parts + ([ingest_pb2.PushRequest(live=request.live)] if request.live or not parts else [])


class _Deaf:
    """A context whose answers go nowhere."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def write(self, _reply: Any) -> None:
        """Lost."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Daemon(roles.Daemon):
    faults: Faults

    def _server(self, ingest: ingest_pb2_grpc.IngestServicer) -> aio.Server:
        options = [*instance.channel_options(), ("grpc.so_reuseport", 0)]
        server = aio.server(interceptors=[self.faults, self._gate], options=options)
        ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
        ingest_pb2_grpc.add_ControlServicer_to_server(self._control, server)
        return server


class FaultyHub:
    """A hub in this event loop, on 127.0.0.1:`port`; may be stopped and started again."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.faults = Faults()
        self._daemon: _Daemon | None = None

    async def start(self) -> None:
        """Serve, with what the home holds."""
        settings = Settings(home=str(self.home))
        daemon = _Daemon(roles.Options(settings, roles.HUB, f"127.0.0.1:{self.port}"), lambda _grace: None)
        daemon.faults = self.faults
        await daemon.start()
        self._daemon = daemon

    async def stop(self) -> None:
        """End it. Safe twice."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await asyncio.wait_for(daemon.stop(0.2), 30)

"""What every route works with: the store behind a thread pool, credentials, events, facts about the hub."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from fastapi import HTTPException, Request, Response

from trackd_daemon.http import encoding
from trackd_daemon.http.auth import Auth
from trackd_daemon.http.events import Broker
from trackd_daemon.ports import HubStore

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 16
MAX_BULK = 4
"""Scans and exports that may run at once: they must not keep the charts waiting for a thread."""

_END: Any = object()


def _no_warnings() -> Sequence[str]:
    return ()


def _no_lag() -> int:
    return 0


@dataclass(frozen=True)
class HubInfo:
    """Facts about the daemon that the store does not know."""

    version: str
    role: str
    started_us: int
    url: Callable[[], str]
    """http://127.0.0.1:PORT, once it listens."""
    static: Path
    """Directory of the built dashboard; may be missing."""
    lag_records: Callable[[], int] = _no_lag
    """Durable in this agent and not yet committed."""
    warnings: Callable[[], Sequence[str]] = _no_warnings


@dataclass
class Hub:
    """Handed to every module of routes."""

    store: HubStore
    auth: Auth
    info: HubInfo
    broker: Broker
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(MAX_THREADS))
    bulk: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(MAX_BULK))

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in a thread."""
        return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self.threads)

    async def need_run(self, project: str, run: str) -> dict[str, Any]:
        """The run. Raises 404."""
        found = await self.call(self.store.run, project, run)
        if found is None:
            raise no_run(project, run)
        return found

    async def need(self, project: str, run: str) -> None:
        """Raises 404 if there is no such run; cheaper than `need_run`."""
        if not await self.call(self.store.versions, [(project, run)]):
            raise no_run(project, run)

    async def stream(self, chunks: Iterator[T]) -> AsyncGenerator[T, None]:
        """What a blocking iterator yields; it is closed when the reader leaves."""
        try:
            while True:
                chunk = await anyio.to_thread.run_sync(next, chunks, _END, limiter=self.bulk)
                if chunk is _END:
                    return
                yield chunk
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(close, limiter=self.threads)


def answer(request: Request, value: Any) -> Response:
    """The value as the client wants it: JSON, or msgpack where the Accept header asks."""
    if encoding.wants_msgpack(request.headers.get("accept", "")):
        return Response(encoding.to_msgpack(value), media_type=encoding.MSGPACK)
    return Response(encoding.to_json(value), media_type=encoding.JSON)


def no_run(project: str, run: str) -> HTTPException:
    """404 for a run."""
    return HTTPException(404, f"no run {run!r} in project {project!r}")


def no_project(project: str) -> HTTPException:
    """404 for a project."""
    return HTTPException(404, f"no project {project!r}")

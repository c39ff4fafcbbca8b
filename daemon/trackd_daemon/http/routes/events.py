"""The live stream."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse

from trackd_daemon.http import encoding
from trackd_daemon.http.events import Watcher
from trackd_daemon.http.hub import Hub
from trackd_daemon.model import RunChange

_CONTENT: dict[int | str, dict[str, Any]] = {200: {"description": "events", "content": {"text/event-stream": {}}}}


def routes(hub: Hub) -> APIRouter:
    """GET /api/v1/events."""
    router = APIRouter(tags=["events"])

    @router.get("/api/v1/events", response_class=StreamingResponse, responses=_CONTENT)
    async def events(project: str | None = None, run: str | None = None) -> StreamingResponse:
        """Commits as they happen: of one run, of a project, or of everything; at most four a second per run."""
        if run is not None and project is None:
            raise HTTPException(422, "run needs project")
        hello = {"store_id": await hub.call(hub.store.store_id)}
        watcher = hub.broker.watch(project, run)
        return StreamingResponse(_stream(hub, watcher, hello), media_type="text/event-stream")

    return router


async def _stream(hub: Hub, watcher: Watcher, hello: dict[str, Any]) -> AsyncIterator[bytes]:
    try:
        yield event("hello", hello)
        async for changes in watcher.changes():
            yield b"".join([event("change", payload(change)) for change in changes]) if changes else b": alive\n\n"
    finally:
        hub.broker.leave(watcher)


def event(name: str, value: dict[str, Any]) -> bytes:
    """One server-sent event. Pure."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encoding.to_json(value))


def payload(change: RunChange) -> dict[str, Any]:
    """The data of a `change` event. Pure."""
    return {
        "project": change.project,
        "run_id": change.run_id,
        "version": change.version,
        "keys": list(change.keys),
        "has_more_keys": change.has_more_keys,
        "last": dict(change.last),
        "fields": list(change.fields),
    }

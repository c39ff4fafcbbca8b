"""The dashboard's files."""

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from trackd_daemon.http import page

DIRECTORY: Final = Path(__file__).with_name("static")
"""Where the web build puts its output; package data, absent in a checkout without npm."""

_HASHED: Final = "assets/"
"""Vite's directory of files whose names carry a hash of their content."""


class Dashboard:
    """ASGI app: a file if there is one of that path, else the page (its router reads the address)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = StaticFiles(directory=directory, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD."""
        response = await self._respond(scope)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        path = scope["path"].lstrip("/")
        if path.startswith(_HASHED):
            # A missing asset must be a 404: answered with the page, a stale tab would run HTML as a script.
            response = await self._file(path, scope) or Response(status_code=404)
            if response.status_code < 300:
                response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
            return response
        return await self._file(path, scope) or await self._index(scope)

    async def _index(self, scope: Scope) -> Response:
        response = await self._file("index.html", scope)
        if response is None:
            return Response(
                page.MISSING, 503, media_type="text/html", headers={"Content-Security-Policy": page.PAGE_POLICY}
            )
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def _file(self, path: str, scope: Scope) -> Response | None:
        if not path or path.endswith("/"):
            return None
        try:
            response = await self._files.get_response(path, scope)
        except HTTPException:
            return None
        return response if response.status_code < 400 else None

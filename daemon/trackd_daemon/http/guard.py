"""The door: every request passes it before any route sees it.

1. the Host header must be a loopback name (a name that an attacker's DNS points here is not one);
2. an Origin, where the browser sends one, must be the hub itself;
3. a credential: the bearer token opens everything; a session's cookie and key open the API; its cookie alone opens the
   dashboard's files, which hold no data (the browser cannot add a header when it loads a page or a script).

One route needs no credential because its body is one: `POST /api/v1/session` with a ticket.
"""

import ipaddress
import re
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from trackd_proto.auth import NONCE_HEADER, PROOF_HEADER

from trackd_daemon.http import encoding, page
from trackd_daemon.http.auth import Auth

API: Final = "/api/"
SESSION: Final = "/api/v1/session"
SLASH: Final = "\ue000"
"""Stands for an encoded slash inside a path segment (a private-use character), see `routes.names`."""

_NONCE: Final = re.compile("[0-9a-f]{32}")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_UNAUTHORIZED: Final = "no credential: run `trackd open` for a link, or send `Authorization: Bearer <token>`"


class Guard:
    """ASGI middleware: refuses what may not pass and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        send = _secured(send)
        if scope["type"] != "http":  # there are no web sockets
            return await Response(status_code=404)(scope, receive, send)
        scope["path"] = split_path(scope)
        headers = Headers(scope=scope)
        refusal = refuse_origin(headers, scope["method"])
        if refusal is not None:
            return await _error(403, refusal)(scope, receive, send)
        if not self._is_allowed(scope, headers):
            return await self._unauthorized(scope, headers)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope, headers: Headers) -> bool:
        path, method = scope["path"], scope["method"]
        if method == "POST" and path == SESSION:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._auth.is_bearer(token.strip())
        cookie = session_cookie(headers, self._auth.cookie_name)
        if cookie is None:
            return False
        if path.startswith(API):
            key = headers.get("x-trackd-key")
            return key is not None and self._auth.is_session(cookie, key)
        return method in _SAFE_METHODS and self._auth.is_session(cookie, None)

    def _unauthorized(self, scope: Scope, headers: Headers) -> Response:
        if scope["path"].startswith(API) or "text/html" not in headers.get("accept", ""):
            answer = _error(401, _UNAUTHORIZED)
        else:
            answer = Response(page.UNAUTHORIZED, 401, media_type="text/html")
            answer.headers["Content-Security-Policy"] = page.PAGE_POLICY
        answer.headers["WWW-Authenticate"] = 'Bearer realm="trackd"'
        nonce, server = headers.get(NONCE_HEADER, ""), scope.get("server")
        if _NONCE.fullmatch(nonce) and server and server[1]:
            answer.headers[PROOF_HEADER] = self._auth.proof(server[1], nonce)
        return answer


def session_cookie(headers: Headers, name: str) -> str | None:
    """The value of the session's cookie, if the request carries it."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def is_loopback_host(host: str) -> bool:
    """Whether a Host header (with or without a port) names this machine's loopback."""
    try:
        name = urlsplit(f"//{host}").hostname
        urlsplit(f"//{host}").port  # noqa: B018  raises for what is no port
    except ValueError:
        return False
    if name is None or "@" in host or "/" in host:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_origin(headers: Headers, method: str) -> str | None:
    """Why a request from this Host and Origin is refused; None if it is not."""
    host = headers.get("host", "")
    if not is_loopback_host(host):
        return f"the Host header {host!r} is no loopback name: use http://127.0.0.1:PORT or http://localhost:PORT"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return f"requests from {origin!r} are not accepted"
    if method not in _SAFE_METHODS and headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        return "requests from other sites are not accepted"
    return None


def split_path(scope: Scope) -> str:
    """The decoded path in which an encoded slash is not mistaken for a separator (names may contain slashes)."""
    path: str = scope["path"]
    raw = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return path
    return "/".join(unquote(segment).replace("/", SLASH) for segment in raw.decode("ascii", "replace").split("/"))


def _error(status: int, text: str) -> Response:
    return Response(encoding.to_json({"detail": text}), status, media_type=encoding.JSON)


def _secured(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.setdefault("Content-Security-Policy", page.APP_POLICY)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
        await send(message)

    return wrapped

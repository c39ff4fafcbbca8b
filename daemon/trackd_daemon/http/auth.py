"""Who may ask: bearer tokens, tickets and browser sessions. Pure except for the session file.

::

    cookie file (0600) --HMAC--> bearer token          Api(), CLI
    ticket (one use, 15 min) --exchange--> session     a browser: cookie value + key, both needed for the API

A session survives a restart of the daemon: the SHA-256 of both halves stands in a 0600 file. Hashing needs no salt or
stretching because both halves are 256 random bits.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from trackd_proto.auth import http_proof, http_token
from trackd_proto.local import places

TICKET_S: Final = 15 * 60
SESSION_S: Final = 30 * 24 * 3600
MAX_TICKETS: Final = 1_000
MAX_SESSIONS: Final = 1_000


class Session(msgspec.Struct, frozen=True):
    """What is kept of one browser's session."""

    token_sha256: str
    key_sha256: str
    expires: float
    """Seconds since the epoch."""


class _SessionFile(msgspec.Struct):
    version: int = 1
    sessions: list[Session] = []


class Auth:
    """Checks credentials and exchanges tickets for sessions. Safe to call from several threads."""

    def __init__(self, cookie: bytes, sessions_path: Path, clock: Callable[[], float] = time.time) -> None:
        self._token = http_token(cookie).encode()
        self._cookie = cookie
        self._path = sessions_path
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[str, float] = {}
        self._sessions = {s.token_sha256: s for s in _load(sessions_path)}
        # Browsers send a cookie to every port of a host name: the name keeps two hubs apart.
        self.cookie_name: Final = f"trackd_session_{hmac.new(cookie, b'session-name', hashlib.sha256).hexdigest()[:8]}"

    def is_bearer(self, token: str) -> bool:
        """Whether this is the token that only a reader of the cookie file can make. Constant time."""
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)

    def proof(self, port: int, nonce: str) -> str:
        """What proves to a client that this hub, on that port, knows the cookie too (see `trackd_proto.auth`)."""
        return http_proof(self._cookie, port, nonce)

    def issue_ticket(self) -> str:
        """A new single-use ticket, valid for `TICKET_S` seconds. The oldest go when there are too many."""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            self._tickets[_sha256(ticket)] = self._clock() + TICKET_S
            while len(self._tickets) > MAX_TICKETS:
                del self._tickets[next(iter(self._tickets))]
        return ticket

    def exchange(self, ticket: str) -> tuple[str, str] | None:
        """(cookie value, key) of a new session; None if the ticket is unknown, used or too old. Writes a file."""
        now = self._clock()
        with self._lock:
            expires = self._tickets.pop(_sha256(ticket), None)
            if expires is None or expires <= now:
                return None
            token, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            kept = [s for s in self._sessions.values() if s.expires > now][-(MAX_SESSIONS - 1) :]
            kept.append(Session(_sha256(token), _sha256(key), now + SESSION_S))
            self._keep(kept)
        return token, key

    def is_session(self, token: str, key: str | None) -> bool:
        """Whether `token` is a live session's cookie and, unless None, `key` is that session's key."""
        session = self._sessions.get(_sha256(token))
        if session is None or session.expires <= self._clock():
            return False
        return key is None or hmac.compare_digest(_sha256(key), session.key_sha256)

    def end_all(self) -> None:
        """Forget every session and ticket. Writes a file."""
        with self._lock:
            self._tickets.clear()
            if self._sessions:
                self._keep([])

    def end(self, token: str) -> None:
        """Forget the session with this cookie value. Writes a file."""
        with self._lock:
            gone = _sha256(token)
            if gone in self._sessions:
                self._keep([s for s in self._sessions.values() if s.token_sha256 != gone])

    def _keep(self, sessions: list[Session]) -> None:
        # The file first: a session the browser holds must not vanish with the daemon.
        _save(self._path, sessions)
        self._sessions = {s.token_sha256: s for s in sessions}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _load(path: Path) -> list[Session]:
    try:
        return msgspec.json.decode(places.read_private(path), type=_SessionFile).sessions
    except (OSError, ValueError, RecursionError):
        return []  # none yet, or not ours to trust: costs a `trackd open`, nothing else


def _save(path: Path, sessions: list[Session]) -> None:
    places.write_private(path, msgspec.json.encode(_SessionFile(sessions=sessions)))

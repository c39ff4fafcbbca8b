"""What is kept of each writer must not grow for as long as a daemon runs."""

import time
from collections.abc import Callable

from trackd_daemon.ingest.hub import HubIngest
from trackd_daemon.ingest.marks import Ledger
from trackd_daemon.ingest.sessions import Sessions

EVERY_S = 3600.0
"""Between two looks at all writers."""


class Forgetting:
    """Forgets the writers that are over."""

    def __init__(self, ledger: Ledger, sessions: Sessions, is_needed: Callable[[bytes, str], bool]) -> None:
        """`is_needed`: something else counts on this writer of this route being known."""
        self.waiting: Callable[[], set[bytes]] = set
        """The writers of which something is on its way into the log."""
        self._ledger = ledger
        self._sessions = sessions
        self._is_needed = is_needed
        self._next_s = time.monotonic() + EVERY_S

    def look(self, hub: HubIngest | None) -> set[str]:
        """If it is time: forget in the ledger, the notices, and `hub`. The routes of writers gone from the ledger."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return set()
        self._next_s = now_s + EVERY_S
        spoken_for = self._sessions.writers()
        held = spoken_for | self.waiting()
        routes = self._ledger.forget_silent(now_s, lambda w, route: w in held or self._is_needed(w, route))
        self._sessions.forget_notices(spoken_for | self._ledger.writers.keys())
        if hub is not None:
            hub.forget_committed(spoken_for)
        return routes

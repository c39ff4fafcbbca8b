"""Replies of open Push streams: which watermarks, gaps and notices each of them still has to hear of."""

import asyncio
from collections.abc import Callable, Container, Iterable
from typing import Any

from trackd_proto.v1 import ingest_pb2

_PAUSE_S = 0.05
"""Between two replies of one stream: part of the freshness budget."""


class Session:
    """One open Push stream."""

    def __init__(self) -> None:
        self.writers: set[bytes] = set()
        self.changed: set[bytes] = set()
        self.gaps: dict[bytes, int] = {}
        self.notices: dict[bytes, ingest_pb2.Notice] = {}
        self.wake = asyncio.Event()
        self.is_over = False
        """The client has sent its last request."""

    def is_idle(self) -> bool:
        """Nothing to say."""
        return not (self.changed or self.gaps or self.notices)

    async def run(
        self,
        context: Any,
        mark_of: Callable[[bytes], ingest_pb2.Watermark],
        is_settled: Callable[["Session"], bool],
    ) -> None:
        """Write replies, at most one per 50 ms, until the client is done, its data settled, and everything said."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            if not self.is_idle():
                await context.write(self._reply(mark_of))
                await asyncio.sleep(_PAUSE_S)
            if not self.is_idle():
                self.wake.set()
            elif self.is_over and is_settled(self):
                return

    def _reply(self, mark_of: Callable[[bytes], ingest_pb2.Watermark]) -> ingest_pb2.PushReply:
        reply = ingest_pb2.PushReply(
            watermarks=[mark_of(writer_id) for writer_id in self.changed],
            gaps=[ingest_pb2.Gap(writer_id=w, expected=expected) for w, expected in self.gaps.items()],
            notices=list(self.notices.values()),
        )
        self.changed, self.gaps, self.notices = set(), {}, {}
        return reply


class Sessions:
    """All open Push streams."""

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self._notices: dict[bytes, ingest_pb2.Notice] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> Session:
        """A stream has begun."""
        session = Session()
        self._open.add(session)
        return session

    def close(self, session: Session) -> None:
        """A stream is over."""
        self._open.discard(session)

    def join(self, session: Session, writer_id: bytes) -> None:
        """The stream speaks for this writer: it hears where it is, and of it from now on, the last notice included.

        Where it is, because that may have changed since the client asked with Resume.
        """
        if writer_id in session.writers:
            return
        session.writers.add(writer_id)
        session.changed.add(writer_id)
        session.wake.set()
        if notice := self._notices.get(writer_id):
            session.notices[writer_id] = notice

    def changed(self, writer_ids: Iterable[bytes]) -> None:
        """Watermarks of these writers have moved."""
        moved = set(writer_ids)
        for session in self._open:
            if mine := session.writers & moved:
                session.changed |= mine
                session.wake.set()

    def notify(self, notice: ingest_pb2.Notice) -> None:
        """Tell the writer's process, now or when it connects."""
        if self._notices.get(notice.writer_id) == notice:
            return
        self._notices[notice.writer_id] = notice
        for session in self._open:
            if notice.writer_id in session.writers:
                session.notices[notice.writer_id] = notice
                session.wake.set()

    def writers(self) -> set[bytes]:
        """Those that an open stream speaks for."""
        return set().union(*(session.writers for session in self._open))

    def forget_notices(self, known: Container[bytes]) -> None:
        """Keep those of the writers in `known` only."""
        self._notices = {w: notice for w, notice in self._notices.items() if w in known}

    def stop(self) -> None:
        """Wake every stream, so that it sees that the daemon is stopping."""
        for session in self._open:
            session.wake.set()

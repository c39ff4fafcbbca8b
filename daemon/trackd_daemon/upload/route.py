"""Drives one route: read what is durable, send what is missing, take what comes back, and never give up."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import tenacity
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.ingest.marks import Ledger
from trackd_daemon.upload.hop import Answer, Hop, HopRefusedError, HopRejectedError, HopUnreachableError, Source
from trackd_daemon.upload.hunt import HopAtFaultError
from trackd_daemon.upload.outbox import Outbox
from trackd_daemon.wal.state import Position

_REQUEST_BYTES: Final = 2 * MIB
_FIRST_RETRY_S: Final = 1.0
"""A hub that is down hears of each of its agents once a second at most."""
LONGEST_RETRY_S: Final = 8.0
"""A hub that is back gets the backlog within 10 s; jitter spreads a thousand agents to 220 small requests a second."""
_PAUSED_RETRY_S: Final = 60.0
"""A hub that refuses, or a bug of ours: time alone hardly helps."""
_MOST_DOUBLINGS: Final = 10
_HUNT_S: Final = 0.05
"""Between two requests of a hop that is well and rejects a record: its neighbours are waiting."""
_logger = logging.getLogger("trackd")


class Route:
    """The upload of one route. Lives in one event loop."""

    def __init__(
        self,
        name: str,
        hop: Hop,
        source: Source,
        ledger: Ledger,
        on_committed: Callable[[Mapping[bytes, int]], None],
        on_notice: Callable[[ingest_pb2.Notice], None],
        overflow: Callable[[], Sequence[ingest_pb2.Batch]] = tuple,
        longest_retry_s: float = LONGEST_RETRY_S,
        on_rejected: Callable[[ingest_pb2.Batch, str], None] = lambda _batch, _reason: None,
        on_pardoned: Callable[[ingest_pb2.Batch], None] = lambda _batch: None,
    ) -> None:
        """`overflow`: what follows the log and cannot be written to it, because the disk is full; usually nothing.

        `on_rejected`: keeps the record of a batch of one that the next hop will not take; `on_pardoned`: it was the
        hop's fault. Both are called in a worker thread.
        """
        self.name = name
        self.state = "idle"
        self.reason = ""
        self.last_contact_us = 0.0
        self._hop = hop
        self._ledger = ledger
        self._on_committed = on_committed
        self._on_notice = on_notice
        self._outbox = Outbox(name, ledger, overflow)
        self._source = source
        self._durable_end = Position(0, 0)
        self._longest_retry_s = longest_retry_s
        self._has_news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._live: set[bytes] = set()
        self._failures = 0
        """Connections that broke since something was committed."""
        self._on_rejected = on_rejected
        self._on_pardoned = on_pardoned
        self._reading: asyncio.Future[tuple[list[ingest_pb2.Batch], bool]] | None = None
        """A read of the log in a thread, which nobody can cancel."""
        self._suspect: ingest_pb2.Batch | None = None
        """Parked last; the next hop has not taken the declaration yet."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start uploading."""
        self._task = asyncio.create_task(self._run(), name=f"route {self.name}")

    async def stop(self) -> None:
        """Stop uploading; what is not committed stays in the log. Safe twice and without start()."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._hop.close()
        self._source.close()

    def durable(self, end: Position) -> None:
        """More of the log is durable."""
        self._durable_end = end
        self._has_news.set()

    def look(self) -> None:
        """There may be something to send."""
        self._has_news.set()

    def alive(self, writer_ids: Sequence[bytes]) -> None:
        """These writers' processes are alive; told to the hub with the next request."""
        self._live.update(writer_ids)
        self._has_news.set()

    def hurry(self) -> None:
        """Do not wait for the next retry."""
        self._hurry.set()

    def status(self) -> ingest_pb2.RouteStatus:
        """For the command line."""
        mine = [m for m in self._ledger.writers.values() if m.route == self.name]
        return ingest_pb2.RouteStatus(
            route=self.name,
            state=self.state,
            reason=self.reason,
            lag_records=sum(m.accepted - m.committed for m in mine),
            last_contact_us=self.last_contact_us,
        )

    # ------------------------------------------------------------------------------------------ connection

    async def _run(self) -> None:
        # Endless: a record is given up by nobody. Jitter, so that many agents do not knock in step.
        retrying = tenacity.AsyncRetrying(
            wait=_Wait(self._longest_retry_s),
            retry=tenacity.retry_if_exception_type((HopUnreachableError, HopRefusedError)),
            sleep=self._sleep,
            before_sleep=self._note_failure,
        )
        while True:
            try:
                async for attempt in retrying:
                    with attempt:
                        await self._connect()
                await self._exchange()
            except OSError as error:  # our own files: no descriptors left, or a disk that fails for a moment
                await self._hop.close()
                await self._back_off(HopUnreachableError(f"cannot read or keep what is to be sent: {error}"))
            except Exception as error:  # a bug of ours must not end the upload for ever
                _logger.exception("route %s: unexpected", self.name)
                self.state, self.reason = "retrying", f"{type(error).__name__}: {error}"
                await self._hop.close()
                await self._sleep(_PAUSED_RETRY_S)

    async def _connect(self) -> None:
        expected = await self._hop.open(self._outbox.waiting())
        self._on_committed(self._outbox.connected(expected))
        self.state, self.reason = self._hop.state, ""
        self.last_contact_us = time.time_ns() / 1000
        self._has_news.set()

    async def _exchange(self) -> None:
        """Send and receive until one of both fails; then wait as long as the failure asks for."""
        try:
            await self._talk()
        except HopRejectedError as error:
            await self._reject(str(error))
        except (HopUnreachableError, HopRefusedError) as error:
            await self._back_off(error)

    async def _talk(self) -> None:
        tasks = {asyncio.create_task(self._send()), asyncio.create_task(self._receive())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Before any wait: an open channel would go on knocking by itself.
            await self._hop.close()
            await self._end_reading()

    async def _end_reading(self) -> None:
        """A thread that still reads would move the cursor behind the back of the next connection: what it skipped
        would be missed, and declared lost."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def _reject(self, reason: str) -> None:
        """Find out what it does not want; everything else goes on."""
        try:
            guilty = self._outbox.rejected()
        except HopAtFaultError:
            suspect, self._suspect = self._suspect, None
            if suspect is not None and self._outbox.pardon(suspect):
                await asyncio.to_thread(self._on_pardoned, suspect)
            await self._back_off(HopRefusedError(reason))
            return
        self.state, self.reason = "retrying", reason
        if guilty is not None:
            self._suspect = guilty
            await asyncio.to_thread(self._on_rejected, guilty, reason)
        await self._sleep(_HUNT_S)

    async def _back_off(self, error: HopUnreachableError | HopRefusedError) -> None:
        """The connection is over: wait before the next."""
        self.state, self.reason = "paused" if isinstance(error, HopRefusedError) else "retrying", str(error)
        _logger.warning("route %s: %s", self.name, error)
        self._failures += 1
        doublings = min(self._failures, _MOST_DOUBLINGS)  # a float takes no more than a thousand
        longest = max(_FIRST_RETRY_S, min(_longest_s(error, self._longest_retry_s), _FIRST_RETRY_S * 2**doublings))
        await self._sleep(max(random.uniform(_FIRST_RETRY_S, longest), _asked_s(error)))  # noqa: S311 - jitter

    def _note_failure(self, retry: tenacity.RetryCallState) -> None:
        error = retry.outcome.exception() if retry.outcome is not None else None
        reason = str(error)
        if reason != self.reason:
            _logger.warning("route %s: %s", self.name, reason)
        self.state, self.reason = "paused" if isinstance(error, HopRefusedError) else "retrying", reason

    async def _sleep(self, seconds: float) -> None:
        """Until the time is over or somebody is in a hurry."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)
        self._hurry.clear()

    # ------------------------------------------------------------------------------------------ exchange

    async def _send(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if self._live:
                live, self._live = self._live, set()
                await self._hop.alive(list(live))
            while self._outbox.has_room() and await self._send_one():
                pass

    async def _send_one(self) -> bool:
        """Send the next request; False if there is nothing to send."""
        if self._outbox.must_rewind:
            self._outbox.must_rewind = False
            self._source.rewind()
        if self._outbox.is_holding():
            if outgoing := self._outbox.compose((), {}, at_end=False):
                await self._hop.send(outgoing)
            return True
        end = self._durable_end
        if end.segment_no == 0:
            return False  # nothing is known to be durable yet
        owed = self._outbox.owed()
        self._reading = asyncio.ensure_future(asyncio.to_thread(self._source.read, end, _REQUEST_BYTES))
        batches, at_end = await asyncio.shield(self._reading)
        self._reading = None
        if self._outbox.must_rewind:
            return True  # a gap came meanwhile
        if outgoing := self._outbox.compose(batches, owed, at_end=at_end):
            await self._hop.send(outgoing)
        return not at_end or self._outbox.is_holding() or self._outbox.has_more_passing

    async def _receive(self) -> None:
        async for answer in self._hop.answers():
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        self.last_contact_us = time.time_ns() / 1000
        if news := self._outbox.take(answer):
            self._failures = 0
            if self._suspect is not None and news.get(self._suspect.writer_id, 0) >= self._suspect.first_seq:
                self._suspect = None
            self._on_committed(news)
        for notice in answer.notices:
            self._on_notice(notice)
        self._has_news.set()


class _Wait(tenacity.wait.wait_base):
    """Full jitter, or longer if the hop asked for it."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        longest_s = _longest_s(error, self._longest_s)
        jitter = tenacity.wait_random_exponential(_FIRST_RETRY_S, longest_s, min=_FIRST_RETRY_S)
        return max(jitter(retry_state), _asked_s(error))


def _longest_s(error: BaseException | None, longest_s: float) -> float:
    return max(longest_s, _PAUSED_RETRY_S) if isinstance(error, HopRefusedError) else longest_s


def _asked_s(error: BaseException | None) -> float:
    return error.retry_after_s if isinstance(error, HopUnreachableError) else 0.0

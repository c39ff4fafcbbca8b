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

from trackd_daemon.ingest.marks import Ledger, Marks
from trackd_daemon.upload.delivery import Delivery, Hole
from trackd_daemon.upload.hop import Answer, Hop, HopRefusedError, HopUnreachableError, Source
from trackd_daemon.wal.state import Position

_REQUEST_BYTES: Final = 2 * MIB
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 60.0
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
    ) -> None:
        """`overflow`: what follows the log and cannot be written to it, because the disk is full; usually nothing."""
        self.name = name
        self.state = "idle"
        self.reason = ""
        self.last_contact_us = 0.0
        self._hop = hop
        self._ledger = ledger
        self._on_committed = on_committed
        self._on_notice = on_notice
        self._overflow = overflow
        self._delivery = Delivery()
        self._source = source
        self._durable_end = Position(0, 0)
        self._has_news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._live: set[bytes] = set()
        self._must_rewind = False
        self._failures = 0
        """Connections that broke since something was committed."""
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
        # Endless: a record is given up by nobody. Full jitter, so that many agents do not knock in step.
        retrying = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(_FIRST_RETRY_S, _LAST_RETRY_S, min=_FIRST_RETRY_S),
            retry=tenacity.retry_if_exception_type((HopUnreachableError, HopRefusedError)),
            sleep=self._sleep,
            before_sleep=self._note_failure,
        )
        while True:
            with contextlib.suppress(HopUnreachableError):
                async for attempt in retrying:
                    with attempt:
                        await self._connect()
                await self._exchange()

    async def _connect(self) -> None:
        writers = [w for w, m in self._ledger.writers.items() if m.route == self.name and m.committed < m.accepted]
        expected = await self._hop.open(writers)
        self._delivery.connected(expected)
        self._on_committed({w: seq - 1 for w, seq in expected.items() if seq - 1 > self._ledger.marks(w).committed})
        self._must_rewind = True
        self.state, self.reason = self._hop.state, ""
        self.last_contact_us = time.time_ns() / 1000
        self._has_news.set()

    async def _exchange(self) -> None:
        """Send and receive until one of both fails."""
        tasks = {asyncio.create_task(self._send()), asyncio.create_task(self._receive())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except (HopUnreachableError, HopRefusedError) as error:
            self.state, self.reason = "retrying", str(error)
            _logger.warning("route %s: %s", self.name, error)
            self._failures += 1
            longest = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**self._failures)
            await self._sleep(random.uniform(_FIRST_RETRY_S, longest))  # noqa: S311 - jitter
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._hop.close()

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
            while self._delivery.has_room() and await self._send_one():
                pass

    async def _send_one(self) -> bool:
        """Send the next request; False if there is nothing to send."""
        if self._must_rewind:
            self._must_rewind = False
            self._source.rewind()
        end = self._durable_end
        if end.segment_no == 0:
            return False  # nothing is known to be durable yet
        marks = {
            w: m.durable for w, m in self._ledger.writers.items() if m.route == self.name and m.committed < m.durable
        }
        batches, at_end = await asyncio.to_thread(self._source.read, end, _REQUEST_BYTES)
        if self._must_rewind:
            return True  # a gap came meanwhile
        outgoing: list[ingest_pb2.Batch] = []
        for batch in batches:
            default = self._ledger.marks(batch.writer_id).committed + 1
            is_wanted, hole = self._delivery.admit(batch.writer_id, batch.first_seq, batch.count, default)
            if hole is not None:
                outgoing.append(self._loss(batch.writer_id, hole))
            if is_wanted:
                outgoing.append(batch)
        if at_end:
            outgoing += self._missing_tails(marks)
            outgoing += self._passed_through()
        if outgoing:
            tops = {batch.writer_id: batch.first_seq + batch.count - 1 for batch in outgoing}
            self._delivery.sent(tops, sum(len(batch.data) for batch in outgoing))
            await self._hop.send(outgoing)
        return not at_end

    def _passed_through(self) -> list[ingest_pb2.Batch]:
        """On a full disk: what follows the log, straight from memory. What the hub commits is safe without our log."""
        passed = []
        for batch in self._overflow():
            default = self._ledger.marks(batch.writer_id).committed + 1
            # Records in between are in the log and not durable yet: no hole, only too early.
            if batch.first_seq <= self._delivery.next_seq(batch.writer_id, default):
                is_wanted, _ = self._delivery.admit(batch.writer_id, batch.first_seq, batch.count, default)
                passed += [batch] if is_wanted else []
        return passed

    def _missing_tails(self, durable: Mapping[bytes, int]) -> list[ingest_pb2.Batch]:
        """Losses at the end of a writer's stream: the log was read to its end and did not hold them."""
        losses = []
        for writer_id, seq in durable.items():
            hole = self._delivery.missing_tail(writer_id, seq, self._ledger.marks(writer_id).committed + 1)
            if hole is not None:
                losses.append(self._loss(writer_id, hole))
        return losses

    def _loss(self, writer_id: bytes, hole: Hole) -> ingest_pb2.Batch:
        marks: Marks = self._ledger.marks(writer_id)
        # What was committed once and is asked for again was lost by the hub, not by this log.
        reason = "restored" if hole.first_seq <= marks.committed else "damaged"
        self._ledger.lost_records += hole.records
        _logger.error(
            "route %s: %d records of writer %s are lost (%s)", self.name, hole.records, writer_id.hex(), reason
        )
        return ingest_pb2.Batch(
            writer_id=writer_id,
            first_seq=hole.first_seq,
            count=hole.records,
            loss_reason=reason,
            route=self.name,
            project=marks.project,
            run_id=marks.run_id,
        )

    async def _receive(self) -> None:
        async for answer in self._hop.answers():
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        self.last_contact_us = time.time_ns() / 1000
        news = {w: seq for w, seq in answer.committed.items() if self._delivery.committed(w, seq)}
        if news:
            self._failures = 0
            self._on_committed(news)
        for writer_id, expected in answer.gaps.items():
            if self._delivery.gap(writer_id, expected):
                self._must_rewind = True
        for notice in answer.notices:
            self._on_notice(notice)
        self._has_news.set()

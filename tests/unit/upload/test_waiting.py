"""An outage of 72 hours by the clock of the waits alone: never given up, never in haste, never asleep for long."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import tenacity
from trackd_daemon.ingest.marks import Ledger
from trackd_daemon.upload.hop import Answer, HopRefusedError, HopUnreachableError
from trackd_daemon.upload.route import LONGEST_RETRY_S, Route, _Wait
from trackd_daemon.wal.state import Position
from trackd_proto.v1 import ingest_pb2

OUTAGE_S = 72 * 3600


async def test_an_outage_of_three_days_is_waited_for_with_at_most_one_request_a_second() -> None:
    now_s, attempts = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    retrying = tenacity.AsyncRetrying(
        wait=_Wait(LONGEST_RETRY_S), retry=tenacity.retry_if_exception_type(HopUnreachableError), sleep=sleep
    )
    async for attempt in retrying:
        with attempt:
            attempts.append(now_s)
            if now_s < OUTAGE_S:
                raise HopUnreachableError("down")
    gaps = [after - before for before, after in pairwise(attempts)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= LONGEST_RETRY_S <= 9, "and it is found again in time to drain within 10 s"
    assert OUTAGE_S / LONGEST_RETRY_S <= len(attempts) < OUTAGE_S / 3


async def test_a_hop_that_refuses_is_left_alone_for_up_to_a_minute() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async for attempt in tenacity.AsyncRetrying(wait=_Wait(LONGEST_RETRY_S), sleep=sleep):
        with attempt:
            if len(waits) < 60:
                raise HopRefusedError("no")
    assert min(waits) >= 1.0
    assert LONGEST_RETRY_S < max(waits) <= 60.0


async def test_connections_that_break_two_thousand_times_in_a_row_are_waited_for_as_ever() -> None:
    """The exponent of the back-off grows with each of them, and a float does not take 2 ** 1024."""
    waits: list[float] = []

    class Breaking(Route):
        async def _sleep(self, seconds: float) -> None:
            waits.append(seconds)

    route = Breaking("r", None, None, Ledger(), lambda _: None, lambda _: None)  # type: ignore[arg-type]
    for _ in range(2000):
        await route._back_off(HopUnreachableError("broken"))
    assert max(waits) <= LONGEST_RETRY_S


async def test_a_hop_that_asks_for_more_time_gets_it() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    error = HopUnreachableError("full")
    error.retry_after_s = 120.0
    async for attempt in tenacity.AsyncRetrying(wait=_Wait(LONGEST_RETRY_S), sleep=sleep):
        with attempt:
            if not waits:
                raise error
    assert waits == [120.0]


class Quiet:
    """A hop that takes everything and says nothing."""

    state = "connected"

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        return {}

    async def send(self, batches: Sequence[ingest_pb2.Batch]) -> None: ...

    async def answers(self) -> AsyncIterator[Answer]:
        await asyncio.Event().wait()
        yield Answer()

    async def alive(self, writer_ids: Sequence[bytes]) -> None: ...

    async def close(self) -> None: ...


class Unreadable:
    """A log that cannot be opened the first two times."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        self.reads += 1
        if self.reads <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return [], True

    def rewind(self) -> None: ...

    def close(self) -> None: ...


async def test_a_log_that_cannot_be_read_for_a_moment_is_read_again_as_soon_as_a_hub_is_asked_again() -> None:
    waits: list[float] = []
    reads_enough = asyncio.Event()

    class Impatient(Route):
        async def _sleep(self, seconds: float) -> None:
            waits.append(seconds)
            assert "Too many open files" in self.status().reason

        async def _send_one(self) -> bool:
            more = await super()._send_one()
            reads_enough.set()
            return more

    source = Unreadable()
    route = Impatient("r", Quiet(), source, Ledger(), lambda _: None, lambda _: None)
    route.durable(Position(1, 100))
    route.start()
    await asyncio.wait_for(reads_enough.wait(), 10)
    await route.stop()
    assert source.reads == 3
    assert len(waits) == 2
    assert max(waits) <= LONGEST_RETRY_S


class Breaking(Quiet):
    """A hop whose first connection breaks while the log is being read."""

    def __init__(self, source: "Slow") -> None:
        self.source = source
        self.opened = 0

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        self.opened += 1
        return {}

    async def answers(self) -> AsyncIterator[Answer]:
        if self.opened == 1:
            await asyncio.to_thread(self.source.is_reading.wait)
            raise HopUnreachableError("broken")
        await asyncio.Event().wait()
        yield Answer()


class Slow:
    """A log whose first read takes long, and tells whether anything else happened meanwhile."""

    def __init__(self) -> None:
        self.is_reading, self.may_end = threading.Event(), threading.Event()
        self.told: list[str] = []
        self.has_rewound = asyncio.Event()

    def read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        if not self.is_reading.is_set():
            self.is_reading.set()
            self.may_end.wait(10)
            self.told.append("the cursor moved")
        return [], True

    def rewind(self) -> None:
        self.told.append("rewind")
        if len(self.told) == 3:
            self.has_rewound.set()

    def close(self) -> None: ...


async def test_a_read_that_a_broken_connection_leaves_behind_moves_no_cursor_of_the_next_one() -> None:
    """It cannot be cancelled; what it would skip behind the rewind would be declared lost."""

    class Hasty(Route):
        async def _sleep(self, seconds: float) -> None: ...

    source = Slow()
    hop = Breaking(source)
    route = Hasty("r", hop, source, Ledger(), lambda _: None, lambda _: None)
    route.durable(Position(1, 100))
    route.start()
    await asyncio.to_thread(source.is_reading.wait, 10)
    await asyncio.sleep(0.2)  # the connection is over; the next one must not have begun
    assert (hop.opened, source.told) == (1, ["rewind"])
    source.may_end.set()
    await asyncio.wait_for(source.has_rewound.wait(), 10)
    await route.stop()
    assert source.told == ["rewind", "the cursor moved", "rewind"]

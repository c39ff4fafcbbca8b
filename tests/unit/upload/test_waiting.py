"""An outage of 72 hours by the clock of the waits alone: never given up, never in haste, never asleep for long."""

from itertools import pairwise

import tenacity
from trackd_daemon.upload.hop import HopUnreachableError
from trackd_daemon.upload.route import _Wait

OUTAGE_S = 72 * 3600
LONGEST_S = 60.0


async def test_an_outage_of_three_days_is_waited_for_with_at_most_one_request_a_second() -> None:
    now_s, attempts = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    retrying = tenacity.AsyncRetrying(
        wait=_Wait(LONGEST_S), retry=tenacity.retry_if_exception_type(HopUnreachableError), sleep=sleep
    )
    async for attempt in retrying:
        with attempt:
            attempts.append(now_s)
            if now_s < OUTAGE_S:
                raise HopUnreachableError("down")
    gaps = [after - before for before, after in pairwise(attempts)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= LONGEST_S, "and it is found again within a minute"
    assert OUTAGE_S / LONGEST_S <= len(attempts) < OUTAGE_S / 10


async def test_a_hop_that_asks_for_more_time_gets_it() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    error = HopUnreachableError("full")
    error.retry_after_s = 120.0
    async for attempt in tenacity.AsyncRetrying(wait=_Wait(LONGEST_S), sleep=sleep):
        with attempt:
            if not waits:
                raise error
    assert waits == [120.0]

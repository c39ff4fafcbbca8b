"""The hub inside this process: its store is fed from the durable log, without a second copy on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from trackd_proto.v1 import ingest_pb2

from trackd_daemon.errors import StoreError
from trackd_daemon.ingest.committer import Committer
from trackd_daemon.upload.hop import Answer, HopRefusedError, HopUnreachableError

_PATIENCE_S: Final = 1.0
"""A flood of records delays what the dashboard shows by no more than this."""
_PAUSE_S: Final = 0.05


class LocalHub:
    """The next hop of the route "embedded" in a daemon that is a hub."""

    state = "embedded"

    def __init__(self, committer: Committer, is_pressed: Callable[[], bool] = lambda: False) -> None:
        """`is_pressed`: records come in so fast that log and store would fight for the processor."""
        self._committer = committer
        self._is_pressed = is_pressed
        self._answers: asyncio.Queue[Answer | StoreError] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """See Hop."""
        await self.close()
        self._answers = asyncio.Queue()
        try:
            return await asyncio.wrap_future(self._committer.resume(writer_ids))
        except StoreError as error:
            raise HopUnreachableError(str(error)) from error

    async def send(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """See Hop."""
        patience = _PATIENCE_S
        while patience > 0 and self._is_pressed():
            await asyncio.sleep(_PAUSE_S)
            patience -= _PAUSE_S
        task = asyncio.create_task(self._finish(self._committer.submit(batches)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answers(self) -> AsyncIterator[Answer]:
        """See Hop."""
        while True:
            answer = await self._answers.get()
            if isinstance(answer, StoreError):
                raise HopUnreachableError(str(answer)) from answer
            yield answer

    async def alive(self, writer_ids: Sequence[bytes]) -> None:
        """See Hop."""
        self._committer.touch(writer_ids)

    async def close(self) -> None:
        """See Hop."""
        # What was submitted is committed or not; opening again asks the store.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _finish(self, future) -> None:  # type: ignore[no-untyped-def]
        try:
            outcomes = await asyncio.wrap_future(future)
        except StoreError as error:
            self._answers.put_nowait(error)
            return
        answer = Answer({w: outcome.next_seq - 1 for w, outcome in outcomes.items()})
        answer.gaps = {w: outcome.next_seq for w, outcome in outcomes.items() if outcome.is_gap}
        self._answers.put_nowait(answer)


class NoHub:
    """The next hop of the route "embedded" where no hub can run: the data is kept."""

    state = "paused"

    def __init__(self, reason: Callable[[], str]) -> None:
        """`reason`: the latest."""
        self._reason = reason

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Refuses."""
        raise HopRefusedError(self._reason())

    async def send(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """Refuses."""
        raise HopRefusedError(self._reason())

    async def answers(self) -> AsyncIterator[Answer]:
        """Refuses."""
        raise HopRefusedError(self._reason())
        yield Answer()

    async def alive(self, writer_ids: Sequence[bytes]) -> None:
        """Nothing to tell."""

    async def close(self) -> None:
        """Nothing to close."""

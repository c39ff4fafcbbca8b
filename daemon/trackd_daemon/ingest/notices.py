"""Tells the processes of runs what only the hub knows: where a run can be seen, and that it is asked to stop."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from trackd_proto.links import project_path, run_path
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.ingest.complaints import Complaints

if TYPE_CHECKING:
    from trackd_daemon.ports import IngestPort

_LOOK_S: Final = 1.0
_ACTIVE_S: Final = 60.0


class Notifier:
    """Asks the store about the writers that were heard of in the last minute. Lives in one event loop."""

    def __init__(
        self, store: "IngestPort", base_url: Callable[[], str], notify: Callable[[ingest_pb2.Notice], None]
    ) -> None:
        self._store = store
        self._base_url = base_url
        self._notify = notify
        self._active: dict[bytes, float] = {}
        self._told: set[bytes] = set()
        self._news = asyncio.Event()
        self._complaints = Complaints("looking up links")
        self._task: asyncio.Task[None] | None = None

    def seen(self, writer_ids: Iterable[bytes]) -> None:
        """These writers are alive or got something committed."""
        now = time.monotonic()
        for writer_id in writer_ids:
            if writer_id not in self._told:
                self._news.set()  # its links should not wait for the next look
            self._active[writer_id] = now

    def start(self) -> None:
        """Start looking."""
        self._task = asyncio.create_task(self._run(), name="notices")

    async def stop(self) -> None:
        """Stop looking. Safe twice and without start()."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_S)
            self._news.clear()
            limit = time.monotonic() - _ACTIVE_S
            self._active = {w: at for w, at in self._active.items() if at > limit}
            self._told &= self._active.keys()
            if not self._active:
                await self._news.wait()
                continue
            try:
                for notice in await asyncio.to_thread(self._ask, list(self._active)):
                    self._told.add(notice.writer_id)
                    self._notify(notice)
            except Exception as error:  # whatever it was: stop requests must reach the runs when it is over
                self._complaints.add(error)

    def _ask(self, writer_ids: Sequence[bytes]) -> list[ingest_pb2.Notice]:
        links = self._store.links(writer_ids)
        stops = self._store.stops(writer_ids)
        base = self._base_url()
        return [
            ingest_pb2.Notice(
                writer_id=writer_id,
                run_url=base + run_path(project, run_id) if base else "",
                project_url=base + project_path(project) if base else "",
                stop=writer_id in stops,
            )
            for writer_id, (project, run_id) in links.items()
        ]

"""The hub inside a daemon: what it consists of, in which order that starts and stops, and trying again if it cannot."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trackd_proto.layout import Instance
from trackd_proto.local import places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.errors import StoreError, TrackdError
from trackd_daemon.ingest import access, hub, notices
from trackd_daemon.ingest.committer import Committer
from trackd_daemon.ingest.sessions import Sessions
from trackd_daemon.lifecycle import process

if TYPE_CHECKING:
    from trackd_daemon.http.server import HttpServer
    from trackd_daemon.ports import HubStore

NO_HUB: Final = "the data is kept; to see it install the hub: pip install 'trackd[hub]', then run trackd open"
FIRST_RETRY_S = 3.0
LONGEST_RETRY_S = 60.0
"""A disk that was full has space again, or a file is unlocked: nobody should have to start the daemon anew for that."""
_logger = logging.getLogger("trackd")


class NoHubError(TrackdError):
    """The hub cannot be started; the message says why."""


class MissingLibrariesError(NoHubError):
    """It cannot be started by this process at all: what it needs is not installed."""


@dataclass(frozen=True)
class Surroundings:
    """What a hub is told of the daemon that it is a part of."""

    where: Instance
    settings: Settings
    role: str
    cookie: bytes
    epoch: int
    sessions: Sessions
    lag_records: Callable[[], int]
    warnings: Callable[[], Sequence[str]]
    on_notice: Callable[[ingest_pb2.Notice], None]


@dataclass(frozen=True)
class HubParts:
    """What a hub consists of. Open with `open`."""

    store: "HubStore"
    committer: Committer
    notifier: notices.Notifier
    http: "HttpServer"
    ingest: hub.HubIngest
    opened: contextlib.AsyncExitStack

    @classmethod
    async def open(cls, around: Surroundings) -> "HubParts":
        """Start them, the store first. If one cannot be started none is left. Raises NoHubError, OSError, anything."""
        async with contextlib.AsyncExitStack() as opened:
            store = await asyncio.to_thread(_open_store, around)
            opened.push_async_callback(asyncio.to_thread, store.close)
            committer = Committer(store)
            opened.push_async_callback(asyncio.to_thread, committer.stop)
            committer.start()
            server = _http_server(around, store)
            notifier = notices.Notifier(store, lambda: server.url, around.on_notice)
            opened.push_async_callback(notifier.stop)
            notifier.start()
            opened.push_async_callback(server.stop)
            await server.start()
            ingest = _ingest(around, store, committer, notifier, server.url)
            return cls(store, committer, notifier, server, ingest, opened.pop_all())

    async def stop(self) -> None:
        """Stop them, the store last. Safe twice."""
        await self.opened.aclose()


def _open_store(around: Surroundings) -> "HubStore":
    try:
        import trackd_daemon.http.server  # noqa: F401, PLC0415  (only a hub has these libraries)
        from trackd_daemon.store import EmbeddedStore  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingLibrariesError(f"{NO_HUB} ({error})") from error
    directory = around.where.store
    try:
        places.private_directory(directory)
        process.keep_freed_memory()
        return EmbeddedStore.open(
            directory,
            min_free_bytes=around.settings.min_free_bytes,
            on_compacted=process.give_back_freed_memory,
        )
    except StoreError as error:
        raise NoHubError(f"cannot open the store in {directory}: {error}") from error


def _http_server(around: Surroundings, store: "HubStore") -> "HttpServer":
    from trackd_daemon.http.server import HttpServer  # noqa: PLC0415

    return HttpServer(
        store,
        around.cookie,
        sessions_path=around.where.directory / "sessions",
        port_path=around.where.port,
        port=around.settings.http_port,
        role=around.role,
        lag_records=around.lag_records,
        warnings=around.warnings,
    )


def _ingest(
    around: Surroundings, store: "HubStore", committer: Committer, notifier: notices.Notifier, url: str
) -> hub.HubIngest:
    greeter = access.Greeter(around.cookie, around.epoch, ingest_pb2.ACK_COMMITTED)
    greeter.store_id, greeter.hub_url = store.store_id(), url
    ingest = hub.HubIngest(greeter, committer, around.sessions)

    def on_live(writer_ids: Sequence[bytes]) -> None:
        committer.touch(writer_ids)
        notifier.seen(writer_ids)

    ingest.on_live = on_live
    ingest.on_committed = notifier.seen
    return ingest


class EmbeddedHub:
    """The hub of one daemon, there or not. Lives in one event loop."""

    def __init__(self, open_parts: Callable[[], Awaitable[HubParts]], on_tried: Callable[[], Awaitable[None]]) -> None:
        """`on_tried`: told after each try in the background, successful or not."""
        self.parts: HubParts | None = None
        self.problem = ""
        """Why the last try failed."""
        self._open_parts = open_parts
        self._on_tried = on_tried
        self._task: asyncio.Task[None] | None = None
        self._has_tried = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_over = False

    @property
    def reason(self) -> str:
        """Why there is no hub."""
        return self.problem or NO_HUB

    @property
    def running(self) -> HubParts:
        """For those who exist only where there is one."""
        assert self.parts is not None
        return self.parts

    @property
    def is_starting(self) -> bool:
        """On its way, and no try has failed so far."""
        return self.parts is None and self._task is not None and not self._has_tried.is_set()

    async def start(self) -> None:
        """Start it now. Raises what HubParts.open() raises."""
        self.parts = await self._open_parts()

    def want(self) -> None:
        """Start it in the background, if nobody has: nobody waits for it, the log holds the data meanwhile."""
        if self.parts is None and self._task is None and not self._is_over:
            self._task = asyncio.create_task(self._keep_trying(), name="start hub")

    async def first_try(self) -> None:
        """Wait for the first try, if there is one; what comes after it may take for ever."""
        if self._task is not None:
            await self._has_tried.wait()

    def hurry(self) -> None:
        """Do not wait for the next try."""
        self._hurry.set()

    async def stop_trying(self) -> None:
        """It stays as it is, for good. Safe twice."""
        self._is_over = True
        self._has_tried.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """Stop it. Safe twice and without start()."""
        await self.stop_trying()
        parts, self.parts = self.parts, None
        if parts is not None:
            await parts.stop()

    async def _keep_trying(self) -> None:
        wait_s = FIRST_RETRY_S
        while not await self._try():
            self._hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), wait_s)
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)

    async def _try(self) -> bool:
        """One try; True if there is nothing more to try."""
        is_over = True
        try:
            self.parts = await self._open_parts()
            self.problem = ""
        except Exception as error:
            is_over = isinstance(error, MissingLibrariesError)
            self._note(error)
        finally:
            self._has_tried.set()
        try:
            await self._on_tried()
        except Exception:  # whoever was told: the hub is there, or is tried again, all the same
            _logger.exception("after a try to start the hub")
        return is_over

    def _note(self, error: Exception) -> None:
        is_known = isinstance(error, (NoHubError, OSError))
        text = str(error) if is_known else f"{type(error).__name__}: {error}"
        if text != self.problem:
            _logger.warning("no hub in this daemon: %s", text, exc_info=None if is_known else error)
        self.problem = text

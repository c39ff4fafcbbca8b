"""The only place where a daemon is put together: which parts a role has, in which order they start and stop.

Downstream starts first (store, upload, log, gRPC server, announcement) and stops last.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from grpc import aio
from trackd_proto.layout import Instance, Published
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc
from trackd_proto.version import VERSION

from trackd_daemon.errors import TrackdError
from trackd_daemon.ingest import access, agent, control, marks
from trackd_daemon.lifecycle import endpoint, ownership, process
from trackd_daemon.wal import log, quota, recovery

AGENT: Final = "agent"
HUB: Final = "hub"
AGENT_AND_HUB: Final = "agent+hub"
_WATCH_S: Final = 2.0
_logger = logging.getLogger("trackd")


class ConfigurationError(TrackdError):
    """The daemon cannot be what it was asked to be; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What a daemon is to be."""

    settings: Settings
    role: str = AGENT_AND_HUB
    listen: str = ""
    """HOST:PORT for gRPC of a hub."""
    segment_bytes: int = log.SEGMENT_BYTES


@dataclass
class Daemon:
    """The running parts of one daemon."""

    options: Options
    request_stop: Callable[[float], None]
    where: Instance = field(init=False)
    role: str = field(init=False)

    def __post_init__(self) -> None:
        self.where = places.instance(self.options.settings.home_path())
        self.role = self.options.role
        self._started_us = time.time_ns() // 1000
        self._ownership: ownership.Ownership | None = None
        self._servers: list[aio.Server] = []
        self._published: Published | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._warnings: list[str] = []
        self._full_reason = ""
        self._wal: log.Wal | None = None
        self._ledger = marks.Ledger()

    async def start(self) -> None:
        """Own the directory, recover, listen, announce. Raises BusyError, UnsupportedVersion, OSError."""
        self._ownership = await asyncio.to_thread(ownership.Ownership, self.where)
        recovered = await asyncio.to_thread(recovery.recover, self.where.wal, self._started_us)
        self.epoch = self._ownership.next_epoch()
        cookie = instance.load_cookie(self.where)
        self._warnings += recovered.warnings
        for line in recovered.warnings:
            _logger.warning("write-ahead log: %s", line)
        for writer in recovered.state.writers.values():
            self._ledger.restore(writer.writer_id, writer.received, writer.acked)
        loop = asyncio.get_running_loop()

        def notify(progress: log.Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(self._on_progress, progress)

        limits = quota.Quota(self.options.settings.wal_quota_bytes, self.options.settings.min_free_bytes)
        self._wal = log.Wal(self.where.wal, recovered, notify, quota=limits, segment_bytes=self.options.segment_bytes)
        greeter = access.Greeter(cookie, self.epoch, ingest_pb2.ACK_DURABLE)
        self._gate = access.Gate(cookie, self.epoch)
        self._ingest = agent.AgentIngest(greeter, self._ledger, self._wal)
        self._control = control.Control(
            status=self._status,
            pending=self._ledger.uncommitted,
            why_pending=lambda: self._full_reason,
            hurry=lambda: None,
            stop=self.request_stop,
            ticket=None,
        )
        await asyncio.to_thread(self._wal.start)
        await self._listen(0)
        ownership.sweep_sockets(self.where.directory, self.epoch)
        self._tasks.append(asyncio.create_task(self._watch(), name="watch"))

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, bring what was accepted to the disk, let go of the directory. Safe twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await asyncio.gather(*(server.stop(min(grace_s, 1.0)) for server in self._servers))
        self._servers.clear()
        if self._wal is not None:
            await asyncio.to_thread(self._wal.close)
        if self._published is not None:
            Path(self._published.socket).unlink(missing_ok=True)
        if self._ownership is not None:
            self._ownership.release()

    # ------------------------------------------------------------------------------------------ listening

    async def _listen(self, attempt: int) -> None:
        """A gRPC server on the incarnation's socket, announced in daemon.json."""
        socket = endpoint.socket_path(self.where, self.epoch, attempt)
        socket.unlink(missing_ok=True)
        server = aio.server(interceptors=[self._gate], options=instance.channel_options())
        ingest_pb2_grpc.add_IngestServicer_to_server(self._ingest, server)
        ingest_pb2_grpc.add_ControlServicer_to_server(self._control, server)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        self._servers.append(server)
        self._published = endpoint.publish(self.where, self.epoch, socket, self.role, "")

    async def _watch(self) -> None:
        """Keep the daemon findable; leave if the directory has been taken away."""
        attempt = 0
        while True:
            await asyncio.sleep(_WATCH_S)
            assert self._ownership is not None and self._published is not None
            if not self._ownership.is_valid():
                _logger.error("%s is gone or belongs to another daemon: leaving", self.where.daemon_lock)
                self.request_stop(0.0)
                return
            if not endpoint.is_in_place(self.where, self._published):
                attempt += 1
                _logger.warning("socket or daemon.json has vanished: publishing again")
                await self._listen(attempt)

    # ------------------------------------------------------------------------------------------ wiring

    def _on_progress(self, progress: log.Progress) -> None:
        self._full_reason = progress.full_reason
        if progress.taken_bytes:
            self._ingest.taken(progress.taken_bytes)
        changed = self._ledger.advance(progress.received, progress.durable, {})
        self._ingest.sessions.changed(changed)

    def _status(self) -> ingest_pb2.StatusReply:
        assert self._wal is not None
        return ingest_pb2.StatusReply(
            version=VERSION,
            epoch=self.epoch,
            pid=process.pid(),
            role=self.role,
            home=str(self.where.home),
            http_url="",
            wal_bytes=self._wal.bytes,
            wal_quota_bytes=self.options.settings.wal_quota_bytes,
            writers=len(self._ledger.writers),
            warnings=[*self._warnings, *([self._full_reason] if self._full_reason else [])],
            started_us=self._started_us,
            rss_bytes=process.rss_bytes(),
        )


def build(options: Options, request_stop: Callable[[float], None]) -> Daemon:
    """A daemon, not started yet. Raises ConfigurationError."""
    return Daemon(options, request_stop)

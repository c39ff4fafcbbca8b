"""Where a daemon is put together (its hub: embedded_hub.py): which parts a role has, in which order they start, stop.

What is downstream starts first and stops last: store and upload, log, gRPC server, announcement.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from grpc import aio
from trackd_proto.batch import split
from trackd_proto.compress import Decompressor
from trackd_proto.layout import Published
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc
from trackd_proto.version import VERSION

from trackd_daemon import embedded_hub
from trackd_daemon.errors import TrackdError
from trackd_daemon.ingest import access, agent, control, marks
from trackd_daemon.ingest.complaints import Complaints
from trackd_daemon.ingest.forgetting import Forgetting
from trackd_daemon.ingest.sessions import Sessions
from trackd_daemon.ingest.trimming import raw_data
from trackd_daemon.lifecycle import endpoint, ownership, process
from trackd_daemon.upload.hop import Hop
from trackd_daemon.upload.local import LocalHub, NoHub
from trackd_daemon.upload.remote import RemoteHub
from trackd_daemon.upload.route import LONGEST_RETRY_S, Route
from trackd_daemon.wal import files, log, parked, quota, reader, recovery
from trackd_daemon.wal.state import LogState, Position
from trackd_daemon.wal.writer import SEGMENT_BYTES, Progress

AGENT: Final = "agent"
HUB: Final = "hub"
AGENT_AND_HUB: Final = "agent+hub"
ROLES: Final = (AGENT, HUB, AGENT_AND_HUB)
EMBEDDED: Final = "embedded"
_WATCH_S: Final = 2.0
_STATS_TICKS: Final = 10
_MEMORY_TICKS: Final = 30
"""Once a minute freed memory goes back to the kernel: bursts leave gaps between what lives, more of them each time."""
_EMBEDDED_RETRY_S: Final = 3.0
"""Our own store, asked again after a full disk: that costs nobody anything, and space may have returned."""
_DRAIN_STORE_S: Final = 3.0
_DRAIN_UPSTREAM_S: Final = 8.0
"""A stopped container is killed after 10 s."""
_logger = logging.getLogger("trackd")


class ConfigurationError(TrackdError):
    """The daemon cannot be what it was asked to be; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What a daemon is to be."""

    settings: Settings
    role: str = AGENT_AND_HUB
    listen: str = ""
    """HOST:PORT for gRPC of a hub, besides the unix socket."""
    is_spawned: bool = False
    """Started by a client rather than by hand: it leaves when nobody has needed it for long."""
    segment_bytes: int = field(default_factory=lambda: int(os.environ.get("TRACKD__SEGMENT_BYTES", SEGMENT_BYTES)))
    """Of the log. The variable is for tests: small segments are rolled and removed every moment."""
    watch_s: float = field(default_factory=lambda: float(os.environ.get("TRACKD__WATCH_S", _WATCH_S)))
    """Between two looks at whether the daemon is still findable and needed. The variable is for tests."""


class Daemon:
    """The running parts of one daemon."""

    def __init__(self, options: Options, request_stop: Callable[[float], None]) -> None:
        self.options = options
        self.role = options.role
        self.where = places.instance(options.settings.home_path())
        self._request_stop = request_stop
        self._started_us = time.time_ns() // 1000
        self._warnings: list[str] = []
        self._full_reason = ""
        self._last_active = time.monotonic()
        self._store_bytes = 0
        self._is_quota_warned = False
        self._sockets = 0
        self._complaints = Complaints("looking after the daemon")
        self._ownership: ownership.Ownership | None = None
        self._published: Published | None = None
        self._servers: list[aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sessions = Sessions()
        self._ledger = marks.Ledger()
        self._wal: log.Wal | None = None
        self._log_state = LogState()
        self._forgetting = Forgetting(self._ledger, self._sessions, self._is_needed)
        self._durable_end = Position(0, 0)
        self._routes: dict[str, Route] = {}
        self._parked = parked.Parked(self.where.directory / "parked")
        self._hub = embedded_hub.EmbeddedHub(self._open_hub, self._on_hub_tried)

    # ------------------------------------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Own the directory, recover, listen, announce.

        Raises BusyError, UnsupportedVersion, ConfigurationError, OSError.
        """
        self._ownership = await asyncio.to_thread(ownership.Ownership, self.where)
        await asyncio.to_thread(files.check_versions, self.where.wal)
        self.epoch = self._ownership.next_epoch()
        self._cookie = instance.load_cookie(self.where)
        self._gate = access.Gate(self._cookie, self.epoch)
        is_agent = self.role != HUB
        ack = ingest_pb2.ACK_DURABLE if is_agent else ingest_pb2.ACK_COMMITTED
        self._greeter = access.Greeter(self._cookie, self.epoch, ack)
        if self.role == HUB or self.options.listen:
            await self._start_hub()  # by name: without it there is nothing to serve
        if is_agent:
            await self._start_agent()
            if not self.options.settings.upstream:
                self._want_hub()
        self._control = self._build_control()
        await self._listen(0)
        if self.options.listen:
            await self._listen_tcp(self.options.listen)
        ownership.sweep_sockets(self.where.directory, self.epoch)
        self._tasks.append(asyncio.create_task(self._watch(), name="watch"))

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, bring what was accepted to the disk, let go of the directory. Safe twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hub.stop_trying()
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop(min(grace_s, 1.0)) for server in servers))
        if self._wal is not None:
            await asyncio.to_thread(self._wal.sync, min(grace_s, 5.0))
            await self._drain(grace_s)
        for route in self._routes.values():
            await route.stop()
        self._routes.clear()
        await self._hub.stop()
        if self._wal is not None:
            await asyncio.to_thread(self._wal.close)
        if self._published is not None:
            Path(self._published.socket).unlink(missing_ok=True)
        if self._ownership is not None:
            self._ownership.release()

    async def _drain(self, grace_s: float) -> None:
        """What is on the disk may as well be in the hub when we leave; if not, it is at the next start.

        A hub elsewhere gets longer than our own store: a container's disk may go with us.
        """
        began = time.monotonic()
        while lagging := self._lagging():
            limit_s = _DRAIN_STORE_S if lagging == {EMBEDDED} else _DRAIN_UPSTREAM_S
            if time.monotonic() - began > min(grace_s, limit_s):
                return
            await asyncio.sleep(0.02)

    def _lagging(self) -> set[str]:
        """Routes that are being taken from us and have not taken everything."""
        open_routes = {name for name, route in self._routes.items() if route.state not in ("paused", "retrying")}
        if self._hub.parts is None:
            open_routes.discard(EMBEDDED)
        return {m.route for m in self._ledger.writers.values() if m.accepted > m.committed} & open_routes

    # ------------------------------------------------------------------------------------------ agent

    async def _start_agent(self) -> None:
        recovered = await asyncio.to_thread(recovery.recover, self.where.wal, self._started_us)
        for line in recovered.warnings:
            _logger.warning("write-ahead log: %s", line)
        self._warnings += recovered.warnings[:10]
        self._log_state = recovered.state
        pending = {writer.route for writer in recovered.state.pending()}
        for writer in recovered.state.writers.values():
            owner = (writer.route, writer.project, writer.run_id)
            self._ledger.restore(writer.writer_id, writer.received, writer.acked, owner)
        loop = asyncio.get_running_loop()

        def notify(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(self._on_progress, progress)

        settings = self.options.settings
        limits = quota.Quota(settings.wal_quota_bytes, settings.min_free_bytes)
        self._wal = log.Wal(self.where.wal, recovered, notify, quota=limits, segment_bytes=self.options.segment_bytes)
        self._ingest = agent.AgentIngest(self._greeter, self._ledger, self._wal, self._sessions)
        self._ingest.on_live = self._on_live
        self._ingest.on_accepted = self._pass_through
        self._forgetting.waiting = self._ingest.waiting_writers
        self._durable_end = await asyncio.to_thread(self._wal.start)
        if EMBEDDED in pending:
            self._want_hub()
        for name in sorted(pending):
            self._route(name)

    def _route(self, name: str) -> Route | None:
        """The upload of a route, started if it is new; None while the hub that it leads to is being started."""
        route = self._routes.get(name)
        if route is None:
            if name == EMBEDDED:
                self._want_hub()
                if self._hub.is_starting:
                    return None
            wal = self._wal
            assert wal is not None
            source = reader.RouteReader(wal.directory, name, lambda: wal.segments)
            route = Route(
                name,
                self._hop(name),
                source,
                self._ledger,
                self._on_committed,
                self._on_notice,
                overflow=lambda: self._ingest.overflow(name),
                on_rejected=self._park,
                on_pardoned=lambda batch: self._parked.drop(batch.writer_id, batch.first_seq),
                longest_retry_s=_EMBEDDED_RETRY_S if name == EMBEDDED else LONGEST_RETRY_S,
            )
            self._routes[name] = route
            route.durable(self._durable_end)
            route.start()
        return route

    def _park(self, batch: ingest_pb2.Batch, reason: str) -> None:
        """Keep the one record of a batch that a hub rejects. Called in a worker thread."""
        record = bytes(next(split(raw_data(batch, Decompressor()))))
        try:
            where = self._parked.keep(batch.writer_id, batch.first_seq, record) or "nowhere: there is no room"
        except OSError as error:
            where = f"nowhere: {error}"
        _logger.error(
            "route %s rejects record %d of run %s/%s (%s): declared lost, kept in %s",
            batch.route, batch.first_seq, batch.project, batch.run_id, reason, where,
        )  # fmt: skip

    def _hop(self, name: str) -> Hop:
        if name != EMBEDDED:
            return RemoteHub(name, self._upstream_cookie)
        if self._hub.parts is None:
            return NoHub(lambda: self._hub.reason)
        return LocalHub(self._hub.parts.committer, lambda: self._ingest.pressure.is_high(time.monotonic()))

    def _upstream_cookie(self) -> bytes:
        """The cookie that a hub in another process checks: that of a file, else our own."""
        path = self.options.settings.upstream_cookie
        return instance.read_cookie(Path(path)) if path else self._cookie

    def _on_progress(self, progress: Progress) -> None:
        """The log has got on."""
        self._full_reason = progress.full_reason
        self._ingest.log_takes(nothing=bool(progress.full_reason), stuck=progress.stuck)
        self._sessions.changed(self._ledger.advance(progress.received, progress.durable, {}))
        if progress.taken_bytes:
            self._ingest.taken(progress.taken_bytes)
        self._pass_through()
        if progress.durable_end is not None:
            self._durable_end = progress.durable_end
        for name in {self._ledger.marks(writer_id).route for writer_id in progress.durable}:
            if (route := self._route(name)) is not None:
                route.durable(self._durable_end)

    def _pass_through(self) -> None:
        """On a full disk the routes look for what waits in memory."""
        for name in self._ingest.overflowing():
            if (route := self._route(name)) is not None:
                route.look()

    def _on_committed(self, committed: Mapping[bytes, int]) -> None:
        """A hub has committed records of this agent."""
        assert self._wal is not None
        self._sessions.changed(self._ledger.advance({}, {}, committed))
        self._wal.acknowledge(committed)
        if self._hub.parts is not None:
            self._hub.parts.notifier.seen(w for w in committed if self._ledger.marks(w).route == EMBEDDED)

    def _on_notice(self, notice: ingest_pb2.Notice) -> None:
        self._sessions.notify(notice)

    def _on_live(self, writer_ids: Sequence[bytes]) -> None:
        by_route: dict[str, list[bytes]] = {}
        for writer_id in writer_ids:
            by_route.setdefault(self._ledger.marks(writer_id).route, []).append(writer_id)
        for name, writers in by_route.items():
            if name and (route := self._route(name)) is not None:
                route.alive(writers)
            if name == EMBEDDED:
                self._tell_of_hub(writers)

    def _tell_of_hub(self, writer_ids: Sequence[bytes]) -> None:
        """Where their runs can be seen, or why nowhere."""
        if self._hub.parts is not None:
            self._hub.parts.notifier.seen(writer_ids)
        elif not self._hub.is_starting:
            for writer_id in writer_ids:
                self._sessions.notify(ingest_pb2.Notice(writer_id=writer_id, message=self._hub.reason))

    # ------------------------------------------------------------------------------------------ hub

    def _want_hub(self) -> None:
        """Start the embedded hub in the background, if this daemon may have one and nobody has started it."""
        if self.role == AGENT_AND_HUB:
            self._hub.want()

    async def _start_hub(self) -> None:
        """Raises ConfigurationError, OSError."""
        try:
            await self._hub.start()
        except embedded_hub.NoHubError as error:
            raise ConfigurationError(str(error)) from error
        self._greet_with_hub()

    async def _open_hub(self) -> embedded_hub.HubParts:
        around = embedded_hub.Surroundings(
            self.where, self.options.settings, self.role, self._cookie, self.epoch, self._sessions,
            lag_records=lambda: self._pending([]), warnings=self._all_warnings, on_notice=self._on_notice,
        )  # fmt: skip
        return await embedded_hub.HubParts.open(around)

    async def _on_hub_tried(self) -> None:
        """There is an answer to where the embedded route leads: what was logged meanwhile is waiting for it."""
        has_hub = self._hub.parts is not None
        leads_nowhere = self._routes.pop(EMBEDDED, None) if has_hub else None
        self._greet_with_hub()
        if any(m.route == EMBEDDED for m in self._ledger.writers.values()):
            self._route(EMBEDDED)
        if leads_nowhere is not None:
            await leads_nowhere.stop()
        if has_hub and self._published is not None:
            self._publish(Path(self._published.socket))  # if it fails the watch tries again

    def _greet_with_hub(self) -> None:
        if self._hub.parts is not None:
            self._greeter.store_id = self._hub.parts.store.store_id()
            self._greeter.hub_url = self._http_url()

    # ------------------------------------------------------------------------------------------ listening

    async def _listen(self, attempt: int) -> None:
        """A gRPC server on the incarnation's socket, announced in daemon.json."""
        socket = endpoint.socket_path(self.where, self.epoch, attempt)
        socket.unlink(missing_ok=True)
        server = self._server(self._hub.running.ingest if self.role == HUB else self._ingest)
        try:
            server.add_insecure_port(f"unix:{socket}")
            await server.start()
            self._publish(socket)
        except BaseException:
            await server.stop(None)  # nobody would find it, and the next attempt makes another
            raise
        self._servers.append(server)

    async def _listen_tcp(self, address: str) -> None:
        """A hub's gRPC server for agents in other processes. Raises ConfigurationError."""
        server = self._server(self._hub.running.ingest)
        try:
            server.add_insecure_port(loopback(address))
        except RuntimeError as error:
            raise ConfigurationError(f"cannot listen on {address}: is the port in use? ({error})") from error
        await server.start()
        self._servers.append(server)

    def _server(self, ingest: ingest_pb2_grpc.IngestServicer) -> aio.Server:
        options = [*instance.channel_options(), ("grpc.so_reuseport", 0)]
        server = aio.server(interceptors=[self._gate], options=options)
        ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
        ingest_pb2_grpc.add_ControlServicer_to_server(self._control, server)
        return server

    def _publish(self, socket: Path) -> None:
        newest = self._published.newest if self._published is not None else None
        self._published = endpoint.publish(
            self.where, self.epoch, socket, self._actual_role(), self._http_url(), newest
        )

    # ------------------------------------------------------------------------------------------ looking after it

    async def _watch(self) -> None:
        """Keep the daemon findable and small; leave if it must."""
        for ticks in itertools.count():
            await asyncio.sleep(self.options.watch_s)
            if self._must_leave():
                return
            looks = [self._stay_findable, self._watch_quota, self._forget]
            looks += [self._measure_store] if ticks % _STATS_TICKS == 0 else []
            looks += [self._give_back_memory] if ticks % _MEMORY_TICKS == _MEMORY_TICKS - 1 else []
            for look in looks:
                try:
                    await look()
                except Exception as error:  # it may be over in the next round, and the other looks are not to blame
                    self._complaints.add(error)

    def _must_leave(self) -> bool:
        """The directory has been taken away, or nobody needs us any more."""
        assert self._ownership is not None
        if not self._ownership.is_valid():
            _logger.error("%s is gone or belongs to another daemon: leaving", self.where.daemon_lock)
            self._request_stop(0.0)
        elif self._is_idle():
            _logger.info("nobody has needed this daemon for %s s: leaving", self.options.settings.idle_exit_s)
            self._request_stop(1.0)
        else:
            return False
        return True

    async def _stay_findable(self) -> None:
        assert self._published is not None
        if not endpoint.is_in_place(self.where, self._published):
            self._sockets += 1
            await self._listen(self._sockets)
            _logger.warning("socket or daemon.json had vanished: published again")
        elif (self._published.role, self._published.http_url) != (self._actual_role(), self._http_url()):
            self._publish(Path(self._published.socket))

    async def _measure_store(self) -> None:
        if self._hub.parts is not None:
            self._store_bytes = (await asyncio.to_thread(self._hub.parts.store.stats))["store_bytes"]

    async def _give_back_memory(self) -> None:
        await asyncio.to_thread(process.give_back_freed_memory)

    async def _watch_quota(self) -> None:
        text = self._quota_warning()
        if text and not self._is_quota_warned:
            _logger.warning("%s", text)
        self._is_quota_warned = bool(text)

    async def _forget(self) -> None:
        for name in self._forgetting.look(self._hub.parts.ingest if self._hub.parts is not None else None):
            await self._reopen(name)

    def _is_needed(self, writer_id: bytes, route: str) -> bool:
        """In the log (its thread changes this, asking is safe): while records of it are there, something must say that
        they are committed. Or its route is in trouble, and must not lose what it has found out."""
        return writer_id in self._log_state.writers or (route in self._routes and bool(self._routes[route].reason))

    async def _reopen(self, name: str) -> None:
        """A route that remembered forgotten writers would not send what comes of them again; a new one asks the hub."""
        route = self._routes.pop(name, None)
        if route is None:
            return
        try:
            await route.stop()
        finally:
            self._route(name)

    def _is_idle(self) -> bool:
        limit_s = self.options.settings.idle_exit_s
        pages = self._hub.parts.http.open_pages if self._hub.parts is not None else 0
        is_needed = len(self._sessions) > 0 or pages > 0
        is_sending = any(route.state != "paused" for route in self._routes.values()) and self._pending([]) > 0
        if is_needed or is_sending:
            self._last_active = time.monotonic()
        return self.options.is_spawned and 0 < limit_s < time.monotonic() - self._last_active

    # ------------------------------------------------------------------------------------------ answers

    def _build_control(self) -> control.Control:
        return control.Control(
            status=self._status,
            pending=self._pending,
            why_pending=self._why_pending,
            hurry=self._hurry,
            stop=self._request_stop,
            ticket=self._ticket,
        )

    def _pending(self, writer_ids: Sequence[bytes]) -> int:
        return self._ledger.uncommitted(writer_ids)

    def _why_pending(self) -> str:
        reasons = [f"{route.name}: {route.reason}" for route in self._routes.values() if route.reason]
        return "; ".join([*reasons, *self._problems()])

    def _hurry(self) -> None:
        self._hub.hurry()
        for route in self._routes.values():
            route.hurry()

    async def _ticket(self) -> tuple[str, str, float] | None:
        """(ticket, base address, seconds) once the hub in this process is up; None if there is none."""
        await self._hub.first_try()
        if self._hub.parts is None:
            return None
        ticket, seconds = self._hub.parts.http.issue_ticket()
        return ticket, self._http_url(), seconds

    def _problems(self) -> list[str]:
        problems = [self._full_reason or self._quota_warning()]
        problems = [text for text in problems if text]
        if self._hub.parts is not None and self._hub.parts.committer.problem:
            problems.append(f"the store cannot take records: {self._hub.parts.committer.problem}")
        return problems

    def _quota_warning(self) -> str:
        if self._wal is None:
            return ""
        return quota.Quota(self._wal.quota_bytes).warning(self._wal.size_bytes, 0)

    def _all_warnings(self) -> list[str]:
        count = self._parked.count()
        rejected = (
            f"a hub rejected {count} records, which were declared lost: they are kept in {self._parked.directory}"
        )
        no_hub = [self._hub.problem] if self._hub.problem else []
        return [*self._warnings, *no_hub, *([rejected] if count else []), *self._problems()]

    def _http_url(self) -> str:
        return self._hub.parts.http.url if self._hub.parts is not None else ""

    def _actual_role(self) -> str:
        return AGENT if self.role == AGENT_AND_HUB and self._hub.parts is None else self.role

    def _route_statuses(self, wal_bytes: int) -> list[ingest_pb2.RouteStatus]:
        statuses = [route.status() for route in self._routes.values()]
        for status in statuses:
            # The log is shared and goes segment by segment: all of it is the honest upper bound.
            status.lag_bytes = wal_bytes if status.lag_records else 0
        return statuses

    def _status(self) -> ingest_pb2.StatusReply:
        wal_bytes = self._wal.size_bytes if self._wal is not None else 0
        return ingest_pb2.StatusReply(
            version=VERSION,
            epoch=self.epoch,
            pid=process.pid(),
            role=self._actual_role(),
            home=str(self.where.home),
            http_url=self._http_url(),
            wal_bytes=wal_bytes,
            wal_quota_bytes=self._wal.quota_bytes if self._wal is not None else 0,
            writers=len(self._ledger.writers),
            store_bytes=self._store_bytes,
            lost_records=self._ledger.lost_records,
            routes=self._route_statuses(wal_bytes),
            warnings=self._all_warnings(),
            started_us=self._started_us,
            rss_bytes=process.rss_bytes(),
        )


def loopback(address: str) -> str:
    """The address, if it is one of this machine alone. Raises ConfigurationError for any other."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise ConfigurationError(f"cannot listen on {address!r}: expected HOST:PORT, such as 127.0.0.1:7731")
    if not is_loopback:
        raise ConfigurationError(
            f"cannot listen on {address}: only loopback addresses are possible, because TLS and authentication between "
            "machines are missing in this version. Use 127.0.0.1:PORT, with an SSH tunnel from other machines"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def build(options: Options, request_stop: Callable[[float], None]) -> Daemon:
    """A daemon, not started yet. Raises ConfigurationError."""
    if options.role not in ROLES:
        raise ConfigurationError(f"there is no role {options.role!r}: expected one of {', '.join(ROLES)}")
    if options.listen:
        loopback(options.listen)
        if options.role == AGENT:
            raise ConfigurationError("only a hub listens on an address: use --role hub or agent+hub with --listen")
    return Daemon(options, request_stop)

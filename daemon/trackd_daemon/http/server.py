"""The HTTP server inside the daemon's event loop."""

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import uvicorn
from trackd_proto.links import project_path, run_path
from trackd_proto.local import places
from trackd_proto.version import VERSION

from trackd_daemon.http import static
from trackd_daemon.http.app import create_app
from trackd_daemon.http.auth import TICKET_S, Auth
from trackd_daemon.http.events import Broker
from trackd_daemon.http.hub import HubInfo, _no_lag, _no_warnings
from trackd_daemon.ports import HubStore

ADDRESS: Final = "127.0.0.1"
_GRACE_S: Final = 2
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves a hub on loopback. `start` returns when it listens, `stop` when streams are ended and all is closed."""

    def __init__(
        self,
        store: HubStore,
        cookie: bytes,
        *,
        sessions_path: Path,
        port_path: Path,
        port: int = 0,
        role: str = "agent+hub",
        static_directory: Path = static.DIRECTORY,
        lag_records: Callable[[], int] = _no_lag,
        warnings: Callable[[], Sequence[str]] = _no_warnings,
    ) -> None:
        """`port`: the configured one; 0 for the one of last time (kept in `port_path`) or a free one."""
        self.auth = Auth(cookie, sessions_path)
        self._port_path = port_path
        self._wanted_port = port
        self._port_warning = ""
        self._more_warnings = warnings
        self._broker = Broker(store)
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server: _Server | None = None
        info = HubInfo(
            version=VERSION,
            role=role,
            started_us=time.time_ns() // 1000,
            url=lambda: self.url,
            static=static_directory,
            lag_records=lag_records,
            warnings=self._warnings,
        )
        self.app = create_app(store, self.auth, info, self._broker)

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT; "" before `start`."""
        return f"http://{ADDRESS}:{self._socket.getsockname()[1]}" if self._socket is not None else ""

    @property
    def open_pages(self) -> int:
        """Live streams: pages that somebody has open."""
        return self._broker.watchers

    def project_url(self, project: str) -> str:
        """The address of a project's page."""
        return self.url + project_path(project)

    def run_url(self, project: str, run_id: str) -> str:
        """The address of a run's page."""
        return self.url + run_path(project, run_id)

    def issue_ticket(self) -> tuple[str, float]:
        """A ticket for a link's fragment (`#ticket=...`) and the seconds it is good for."""
        return self.auth.issue_ticket(), TICKET_S

    async def start(self) -> None:
        """Listen. Raises OSError if no port can be bound at all."""
        self._socket = self._bind()
        places.write_private(self._port_path, str(self._socket.getsockname()[1]).encode(), is_durable=False)
        self._broker.open()
        config = uvicorn.Config(
            self.app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _Server(config)
        # The socket listens already: a request sent now waits in its backlog.
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")

    async def stop(self) -> None:
        """Stop accepting, end streams, finish what is under way (at most two seconds). Safe twice and without start."""
        self._broker.close()
        if self._server is not None:
            self._server.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
        if self._socket is not None:
            self._socket.close()

    def _warnings(self) -> Sequence[str]:
        return [*([self._port_warning] if self._port_warning else []), *self._more_warnings()]

    def _bind(self) -> socket.socket:
        last = _read_port(self._port_path)
        for port in dict.fromkeys([self._wanted_port or last, last, 0]):
            try:
                bound = _listen(port)
            except OSError as error:
                if error.errno not in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL} or port == 0:
                    raise
                continue
            got = bound.getsockname()[1]
            if last not in {0, got}:
                # Whoever has that port now serves the origin in which browsers keep the other half of our sessions.
                self.auth.end_all()
            if self._wanted_port not in {0, got}:
                self._port_warning = (
                    f"port {self._wanted_port} is in use or not allowed: the dashboard is on port {got}"
                )
                _log.warning(self._port_warning)
            return bound
        raise AssertionError("port 0 was tried last")


def _listen(port: int) -> socket.socket:
    # The protocol by name: asyncio switches Nagle's algorithm off only on sockets that say TCP, and with it on every
    # second answer waits 40 ms for the other side's delayed acknowledgement.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Restarting on the same port must not wait for old connections to be forgotten.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((ADDRESS, port))
        bound.listen(128)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _read_port(path: Path) -> int:
    try:
        port = int(places.read_private(path, 16))
    except (OSError, ValueError):
        return 0
    return port if 1024 <= port <= 65535 else 0

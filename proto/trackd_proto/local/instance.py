"""Find the daemon of an instance directory, prove to each other who one is, and start one if there is none.

Used by the courier, the CLI and an agent that uploads to a hub on the same machine; the trainer uses `places` alone
(this module loads gRPC).

Who one is: `cookie` holds 32 random bytes that only this user can read. The client sends a nonce in Hello and
believes the daemon only if the reply carries HMAC(cookie, "daemon" + nonce). Only then does it send its own token
HMAC(cookie, "client" + epoch) with every call; it is good for that incarnation of that daemon. The cookie
itself never travels.
"""

import asyncio
import fcntl
import hashlib
import hmac
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import msgspec
from grpc import aio

from trackd_proto import limits
from trackd_proto.layout import Instance, Published
from trackd_proto.local import installations, places
from trackd_proto.v1 import ingest_pb2, ingest_pb2_grpc
from trackd_proto.version import PROTOCOL_MAX, PROTOCOL_MIN, VERSION

PROOF_KEY: Final = "x-trackd-proof"
"""Metadata key of a call's credential."""

READY: Final = b"R"
"""What a spawned daemon writes to its readiness pipe; anything else it writes is why it could not start."""

NEWER_DATA: Final = "the data is newer: "
"""How that begins if the daemon is too old for what it found."""

_Result = TypeVar("_Result")
_PROTOCOLS: Final = (PROTOCOL_MIN, PROTOCOL_MAX)
_COOKIE_BYTES: Final = 32
_BAD_COOKIE: Final = "{} is damaged: stop the daemon (trackd stop), remove the file and start again"
_HELLO_TIMEOUT_S: Final = 5.0
_SPAWN_TIMEOUT_S: Final = 10.0
_STARTS: Final = 2
_RETRY_S: Final = 0.02
_LOG_BYTES: Final = 4 * limits.MIB
_KEPT_VARIABLES: Final = (
    "HOME", "PATH", "LANG", "TMPDIR", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"
)  # fmt: skip
_KEPT_PREFIXES: Final = ("LC_", "XDG_", "TRACKD_")


class NotReachableError(ConnectionError):
    """No daemon answers (none runs, or it hangs)."""


class ImpostorError(ConnectionError):
    """Something answers that does not know this user's cookie; nothing was sent to it."""


class SpawnError(RuntimeError):
    """The daemon could not be started; the message says why."""


class VersionMismatchError(RuntimeError):
    """Daemon and client have no protocol version in common."""


class OutdatedError(SpawnError):
    """Every daemon that could be started is too old for the data that is there."""


# ---------------------------------------------------------------------------------------------- credentials


def load_cookie(where: Instance, *, can_create: bool = True) -> bytes:
    """The 32 bytes that prove this user. Raises FileNotFoundError (not created), UnsafePlaceError, ValueError."""
    try:
        return read_cookie(where.cookie)
    except FileNotFoundError:
        if not can_create:
            raise
    places.prepare(where)
    places.create_private(where.cookie, secrets.token_hex(_COOKIE_BYTES).encode())
    return read_cookie(where.cookie)


def read_cookie(path: Path) -> bytes:
    """The cookie in a file. Raises FileNotFoundError, UnsafePlaceError, ValueError."""
    try:
        cookie = bytes.fromhex(places.read_private(path, 4096).decode("ascii"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(_BAD_COOKIE.format(path)) from error
    if len(cookie) != _COOKIE_BYTES:
        raise ValueError(_BAD_COOKIE.format(path))
    return cookie


def daemon_proof(cookie: bytes, nonce: bytes) -> bytes:
    """What a daemon answers in Hello."""
    return hmac.new(cookie, b"daemon" + nonce, hashlib.sha256).digest()


def client_proof(cookie: bytes, epoch: int) -> str:
    """What a client sends with each call to the daemon of that epoch, as metadata PROOF_KEY."""
    return hmac.new(cookie, b"client" + epoch.to_bytes(8, "big"), hashlib.sha256).hexdigest()


# ---------------------------------------------------------------------------------------------- connecting


class ProvenChannel:
    """A channel whose calls carry the client's proof; takes the place of grpc.aio.Channel in the generated stubs."""

    def __init__(self, channel: aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.raw = channel
        self.metadata = metadata

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As in grpc.aio.Channel."""
        return partial(self.raw.unary_unary(*args, **kwargs), metadata=self.metadata)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As in grpc.aio.Channel."""
        return partial(self.raw.stream_stream(*args, **kwargs), metadata=self.metadata)

    async def close(self, grace: float | None = None) -> None:
        """Close it; calls under way get `grace` seconds."""
        await self.raw.close(grace)


class Link(NamedTuple):
    """A proven connection to a daemon: `IngestStub(link.channel)` is ready for use."""

    channel: ProvenChannel
    reply: ingest_pb2.HelloReply

    @property
    def ingest(self) -> Any:
        """Stub of the Ingest service (asynchronous)."""
        return ingest_pb2_grpc.IngestStub(self.channel)  # type: ignore[arg-type]

    @property
    def control(self) -> Any:
        """Stub of the Control service (asynchronous)."""
        return ingest_pb2_grpc.ControlStub(self.channel)  # type: ignore[arg-type]


def channel_options() -> list[tuple[str, int | str]]:
    """gRPC options that both ends use."""
    size = limits.MAX_REQUEST_BYTES + 64 * limits.KIB
    return [
        ("grpc.max_send_message_length", size),
        ("grpc.max_receive_message_length", size),
        ("grpc.max_metadata_size", 16 * limits.KIB),
        ("grpc.enable_http_proxy", 0),
        # A fresh channel tries at once instead of sharing the back-off of an older one.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.http2.lookahead_bytes", 4 * limits.MIB),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


def _watched(target: str) -> list[tuple[str, int | str]]:
    """A connection to another machine may die without a word (a cable, a firewall): it is asked for a sign of life."""
    if target.startswith("unix:"):
        return []
    return [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]


async def uncancelled(call: Awaitable[_Result]) -> _Result:
    """The result of a gRPC call. The status CANCELLED of the other side, which gRPC raises as CancelledError and which
    would end the calling task, is raised as NotReachableError; a cancellation of the task itself remains one.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    try:
        if task.cancelled():
            raise NotReachableError("the other side cancelled the call")
        return task.result()
    finally:
        del task  # its error's traceback holds this frame: a circle that would keep the call, and its channel, alive


def read_published(where: Instance) -> Published | None:
    """What daemon.json says, None if there is none or it is damaged. Raises UnsafePlaceError."""
    try:
        return msgspec.json.decode(places.read_private(where.published), type=Published)
    except (FileNotFoundError, ValueError, RecursionError):
        return None


async def connect(where: Instance, *, client: str = f"client/{VERSION}", timeout_s: float = _HELLO_TIMEOUT_S) -> Link:
    """Connect to the running daemon of an instance directory and prove each other.

    Raises NotReachableError, ImpostorError, VersionMismatchError, UnsafePlaceError.
    """
    return await _connect(where, read_published(where), client, timeout_s, _PROTOCOLS)


async def _connect(
    where: Instance, published: Published | None, client: str, timeout_s: float, protocols: tuple[int, int]
) -> Link:
    try:
        places.private_directory(where.directory)
        cookie = load_cookie(where, can_create=False)
    except FileNotFoundError as error:
        raise NotReachableError(f"no daemon has run in {where.directory} yet") from error
    if published is None:
        raise NotReachableError(f"no daemon is published in {where.published}")
    path = Path(published.socket)
    if path.parent != where.directory:
        places.private_directory(path.parent)
    return await connect_to(f"unix:{path}", cookie, client=client, timeout_s=timeout_s, protocols=protocols)


async def connect_to(
    target: str,
    cookie: bytes,
    *,
    client: str,
    timeout_s: float = _HELLO_TIMEOUT_S,
    protocols: tuple[int, int] = _PROTOCOLS,
) -> Link:
    """Connect to ``unix:PATH`` or ``HOST:PORT`` and prove each other with `cookie`. Errors as in connect().

    `protocols`: the oldest and the newest that this side speaks.
    """
    nonce = secrets.token_bytes(16)
    channel = aio.insecure_channel(target, options=[*channel_options(), *_watched(target)])
    try:
        hello = ingest_pb2.HelloRequest(
            protocol_min=protocols[0], protocol_max=protocols[1], client=client, nonce=nonce
        )
        stub: Any = ingest_pb2_grpc.IngestStub(channel)
        reply = await uncancelled(stub.Hello(hello, timeout=timeout_s))
        if not hmac.compare_digest(reply.proof, daemon_proof(cookie, nonce)):
            raise ImpostorError(f"what listens on {target} does not know this user's cookie; nothing was sent to it")
    except aio.AioRpcError as error:
        await channel.close(None)
        error.with_traceback(None)  # its frames hold the call: a closed channel goes on connecting while it has calls
        if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
            raise VersionMismatchError(error.details() or f"{target} speaks another protocol version") from error
        raise NotReachableError(f"{target} does not answer: {error.details() or error.code().name}") from error
    except BaseException:
        await channel.close(None)
        raise
    return Link(ProvenChannel(channel, ((PROOF_KEY, client_proof(cookie, reply.epoch)),)), reply)


async def reach(where: Instance, *, client: str = f"client/{VERSION}", timeout_s: float = _SPAWN_TIMEOUT_S) -> Link:
    """connect(), starting the daemon if none answers, or ours in the place of one that is too old for us.

    Raises as connect(), and SpawnError.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        published = read_published(where)
        try:
            return await _connect(where, published, client, _HELLO_TIMEOUT_S, _PROTOCOLS)
        except NotReachableError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        except VersionMismatchError:
            left = deadline - time.monotonic()
            if left <= 0 or published is None or not _is_too_old(published):
                raise
            await _send_away(where, published, client)
        await asyncio.to_thread(spawn, where, timeout_s=left)
        if time.monotonic() < deadline:
            await asyncio.sleep(_RETRY_S * secrets.randbelow(100) / 100)


def _is_too_old(published: Published) -> bool:
    """It speaks no protocol of ours and never will. A newer one stays: two installations must not take turns."""
    return installations.is_newer(VERSION, published.version) and published.protocol_max < PROTOCOL_MIN


async def _send_away(where: Instance, published: Published, client: str) -> None:
    """Have an older daemon leave, in its own protocol. What it has stays in its log, and its clients come again."""
    protocols = (published.protocol_min, published.protocol_max)
    try:
        link = await _connect(where, published, client, _HELLO_TIMEOUT_S, protocols)
        try:
            await uncancelled(link.control.Drain(ingest_pb2.DrainRequest(), timeout=_HELLO_TIMEOUT_S))
        finally:
            await link.channel.close(None)
    except (NotReachableError, aio.AioRpcError):
        return  # it has left, or will be asked again


# ---------------------------------------------------------------------------------------------- starting


def is_listening(where: Instance) -> bool:
    """Somebody accepts connections on the published socket. Cheap; says nothing about who it is."""
    published = read_published(where)
    if published is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(published.socket)
        except OSError:
            return False
    return True


def spawn(where: Instance, *, environ: Mapping[str, str] = os.environ, timeout_s: float = _SPAWN_TIMEOUT_S) -> None:
    """Start the daemon of an instance directory and return when it is ready, or at once if somebody else just has.

    Blocks; of many processes that call it one starts a daemon and the others wait for it. Raises SpawnError,
    UnsafePlaceError.
    """
    deadline = time.monotonic() + timeout_s
    places.prepare(where)
    lock = os.open(where.spawn_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise SpawnError(f"another process holds {where.spawn_lock} and starts no daemon; see {where.log}")
            time.sleep(_RETRY_S)
        if not is_listening(where):
            _start(where, environ, max(deadline - time.monotonic(), 1.0))
    finally:
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(where: Instance, environ: Mapping[str, str], timeout_s: float) -> None:
    """The newest installation's daemon, or ours if that one cannot be started. Raises SpawnError."""
    deadline = time.monotonic() + timeout_s
    _turn_over(where.log)
    reasons = []
    for each in installations.to_start(read_published(where)):
        reason = _start_one(where, each.command, environ, deadline)
        if not reason:
            return
        reasons.append((each.version, reason))
    text = "; ".join(f"trackd {version}: {reason.removeprefix(NEWER_DATA)}" for version, reason in reasons)
    is_outdated = all(reason.startswith(NEWER_DATA) for _, reason in reasons)
    kind = OutdatedError if is_outdated else SpawnError
    raise kind(f"the trackd daemon did not start: {text} (log: {where.log})")


def _start_one(where: Instance, command: list[str], environ: Mapping[str, str], deadline: float) -> str:
    """Why this daemon cannot be started, "" if it is ready. Raises SpawnError: it could, but is not ready.

    One that ends without a word may have been killed, which says nothing about the next time: it is tried again.
    """
    for _ in range(_STARTS):
        before = read_published(where)
        said = _run_until_ready(where, command, environ, max(deadline - time.monotonic(), 1.0))
        if said:
            return "" if said == READY else said.decode("utf-8", "replace")
        if said is None:
            raise SpawnError(f"the trackd daemon was not ready in time (log: {where.log})")
        if read_published(where) != before:
            raise SpawnError(f"the trackd daemon was ended as soon as it was there (log: {where.log})")
    return "it ended without a word"


def _run_until_ready(where: Instance, command: list[str], environ: Mapping[str, str], timeout_s: float) -> bytes | None:
    """What it said by then, "" if it ended without a word; None: neither."""
    log = places.open_log(where.log)
    read_end, write_end = os.pipe()
    try:
        try:
            with subprocess.Popen(
                [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=clean_environment(where, environ),
                start_new_session=True, close_fds=True, pass_fds=(write_end,),
            ):  # fmt: skip
                pass
        except OSError as error:
            return f"cannot start {command[0]}: {error.strerror}".encode()
        finally:
            os.close(log)
            os.close(write_end)
        return _read_until_closed(read_end, timeout_s)
    finally:
        os.close(read_end)


def _turn_over(log: Path) -> None:
    """Keep the log small: a large one becomes the only old one."""
    try:
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(log.name + ".old"))
    except OSError:
        return


def _read_until_closed(descriptor: int, timeout_s: float) -> bytes | None:
    """READY as soon as it comes, else what was written until the other end closed; None: time was up."""
    import select  # noqa: PLC0415  (only here; keeps the module's import list short for the CLI)

    deadline, said = time.monotonic() + timeout_s, b""
    poll = select.poll()  # select() refuses descriptors above 1023, which a process with many files has
    poll.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            break
        part = os.read(descriptor, 4096)
        said += part
        if not part or said == READY:
            return said
    return None


def clean_environment(where: Instance, environ: Mapping[str, str]) -> dict[str, str]:
    """What a daemon inherits: no more than it needs, so that nothing of one job leaks into another's."""
    kept = {k: v for k, v in environ.items() if k in _KEPT_VARIABLES or k.startswith(_KEPT_PREFIXES)}
    return kept | {"TRACKD_HOME": str(where.home)}

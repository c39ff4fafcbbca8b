"""Asks the daemon and the upstream hub. Starts neither, sends nothing but questions."""

import asyncio
import os
import socket
import tempfile
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import urllib3
from grpc import aio
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import VERSION

from trackd_daemon.doctor import facts

_CLIENT: Final = f"cli/{VERSION}"
_CONNECT_S: Final = 0.5
_ANSWER_S: Final = 0.8


def see_socket(where: Instance) -> facts.Socket:
    """Where the next daemon will listen."""
    epoch = 0
    with suppress(OSError, ValueError):
        epoch = int(places.read_private(where.epoch, 64))
    path = where.socket(epoch + 1, Path(tempfile.gettempdir()), os.geteuid())
    return facts.Socket(str(path), len(os.fsencode(path)), path.parent == where.directory)


def see_daemon(where: Instance) -> facts.Daemon:
    """What is published, and what answers there."""
    try:
        published = instance.read_published(where)
    except (places.UnsafePlaceError, OSError) as error:
        return facts.Daemon(None, outcome="unsafe", error=str(error))
    if published is None:
        return facts.Daemon(None)
    is_there = Path(published.socket).exists()

    def seen(outcome: Literal["silent", "impostor", "version", "unsafe"], error: object) -> facts.Daemon:
        return facts.Daemon(published, is_there, outcome, str(error))

    try:
        reply = asyncio.run(_ask_daemon(where))
    except instance.ImpostorError as error:
        return seen("impostor", error)
    except instance.VersionMismatchError as error:
        return seen("version", error)
    except (places.UnsafePlaceError, ValueError) as error:
        return seen("unsafe", error)
    except aio.AioRpcError as error:
        return seen("silent", error.details() or error.code().name)
    except OSError as error:
        return seen("silent", error)
    routes = tuple(facts.RouteLag(r.route, r.state, r.reason, r.lag_records) for r in reply.routes)
    return facts.Daemon(published, is_there, "ok", "", reply.version, routes, tuple(reply.warnings), reply.lost_records)


def _hush() -> None:
    """Loops of grpc.aio in several threads wake each other for nothing, and would say so on stderr."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), BlockingIOError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)


async def _ask_daemon(where: Instance) -> Any:
    _hush()
    link = await instance.connect(where, client=_CLIENT, timeout_s=_ANSWER_S)
    try:
        return await link.control.Status(ingest_pb2.StatusRequest(), timeout=_ANSWER_S)
    finally:
        await link.channel.close(None)


def see_upstream(where: Instance, settings: Settings) -> facts.Upstream:
    """Whether the hub of the settings can be resolved and reached, knows our credential, and what time it has."""
    address = settings.upstream
    if not address:
        return facts.Upstream("", "embedded")
    host, _, port = address.rpartition(":")
    try:
        targets = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        return facts.Upstream(address, "unresolved", f"there is no address for {host}: {error.strerror or error}")
    if error_text := _connect([target[4] for target in targets]):
        return facts.Upstream(address, "unreachable", error_text)
    try:
        cookie = instance.read_cookie(Path(settings.upstream_cookie or where.cookie))
    except FileNotFoundError as error:
        return facts.Upstream(address, "cookie", f"there is no cookie file {error.filename}")
    except (places.UnsafePlaceError, OSError, ValueError) as error:
        return facts.Upstream(address, "cookie", str(error))
    try:
        hub_url = asyncio.run(_ask_hub(address, cookie))
    except instance.ImpostorError as error:
        return facts.Upstream(address, "impostor", str(error))
    except instance.VersionMismatchError as error:
        return facts.Upstream(address, "version", str(error))
    except aio.AioRpcError as error:
        is_refusal = error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        text = error.details() or error.code().name
        return facts.Upstream(address, "refused" if is_refusal else "silent", text)
    except OSError as error:
        return facts.Upstream(address, "silent", str(error))
    return facts.Upstream(address, "ok", skew_s=_skew(hub_url) if hub_url else None)


def _connect(targets: list[Any]) -> str:
    """ "" if one of the socket addresses accepts a connection, else why the last does not."""
    reason = "no address"
    for target in targets[:2]:
        try:
            with socket.create_connection(target[:2], timeout=_CONNECT_S):
                return ""
        except TimeoutError:
            reason = f"no answer within {_CONNECT_S} s"
        except OSError as error:
            reason = error.strerror or str(error)
    return reason


async def _ask_hub(address: str, cookie: bytes) -> str:
    """The URL of its dashboard. Hello proves the hub to us; only a further call proves us to the hub."""
    _hush()
    link = await instance.connect_to(address, cookie, client=_CLIENT, timeout_s=_ANSWER_S)
    try:
        await link.ingest.Resume(ingest_pb2.ResumeRequest(), timeout=_ANSWER_S)
        return link.reply.hub_url
    finally:
        await link.channel.close(None)


def _skew(url: str) -> float | None:
    """The hub's clock minus ours in seconds, by the Date header of whatever it answers; None if it does not."""
    before = time.time()
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request("HEAD", url, timeout=_CONNECT_S, retries=False)
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (urllib3.exceptions.HTTPError, KeyError, TypeError, ValueError):
        return None
    # The header has whole seconds: on average it is half a second old.
    return told + 0.5 - (before + time.time()) / 2

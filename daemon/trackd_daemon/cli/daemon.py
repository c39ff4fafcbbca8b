"""Commands about the daemon itself: serve, status, stop."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from google.protobuf.json_format import MessageToDict
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from trackd_proto import settings as table
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import VERSION

from trackd_daemon import app as program
from trackd_daemon import roles
from trackd_daemon.cli import hub

T = TypeVar("T")
NOT_RUNNING: Final = 3
"""Exit code of `status` without a daemon."""
_GONE_S: Final = 15.0


def register(app: typer.Typer) -> None:
    """Add serve, status and stop to the command line."""
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("stop")(stop)


def serve(
    role: Annotated[str, typer.Option(help="agent, hub or agent+hub.")] = roles.AGENT_AND_HUB,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Also take records from agents of other processes (loopback only).")
    ] = "",
    http_port: Annotated[int | None, typer.Option(help="Port of the dashboard; 0: any free one.")] = None,
    spawned: Annotated[bool, typer.Option("--spawned", hidden=True)] = False,
    ready_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Run the daemon in the foreground for this user. Ctrl-C ends it."""
    loaded = table.load(arguments={"http_port": http_port})
    for problem in loaded.problems:
        typer.echo(f"error: {problem.message}", err=True)
    if loaded.problems:
        raise typer.Exit(1)
    options = roles.Options(loaded.settings, role=role, listen=listen, is_spawned=spawned)
    raise typer.Exit(program.serve(options, is_spawned=spawned, ready_fd=ready_fd))


def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Say whether the daemon runs, and how far it is. Exits with 3 if none runs."""
    where = this_instance()

    async def ask(link: instance.Link) -> ingest_pb2.StatusReply:
        reply: ingest_pb2.StatusReply = await link.control.Status(ingest_pb2.StatusRequest(), timeout=5)
        return reply

    try:
        reply = asyncio.run(with_daemon(where, ask))
    except instance.NotReachableError as error:
        if as_json:
            hub.print_json({"running": False, "home": str(where.home), "reason": str(error)})
        else:
            typer.echo(f"no daemon runs for {where.home} ({error}); the next trackd.init() or `trackd open` starts one")
        raise typer.Exit(NOT_RUNNING) from None
    if as_json:
        hub.print_json({"running": True, **_as_dict(reply)})
    else:
        _print_status(reply)


def stop(
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until everything has been sent, before leaving.")
    ] = 5.0,
) -> None:
    """End the daemon. What is not sent stays on the disk and is sent by the next one."""
    where = this_instance()
    published = instance.read_published(where)

    async def drain(link: instance.Link) -> int:
        reply = await link.control.Drain(ingest_pb2.DrainRequest(timeout_s=timeout_s), timeout=timeout_s + 30)
        return int(reply.pending_records)

    try:
        pending = asyncio.run(with_daemon(where, drain))
    except instance.NotReachableError:
        typer.echo(f"no daemon runs for {where.home}")
        return
    deadline = time.monotonic() + _GONE_S
    while published is not None and _exists(published.pid):
        if time.monotonic() > deadline:
            hub.fail(f"the daemon (pid {published.pid}) has not left within {_GONE_S:.0f} s; see {where.log}")
        time.sleep(0.02)
    left = f"; {pending} records are kept in {where.wal} and will be sent by the next daemon" if pending else ""
    typer.echo(f"stopped{left}")


def this_instance() -> Instance:
    """The instance directory of this user's settings."""
    return places.instance(hub.load_settings().home_path())


async def with_daemon(where: Instance, ask: Callable[[instance.Link], Awaitable[T]]) -> T:
    """What the running daemon answers. Raises NotReachableError; other errors end the command."""
    try:
        link = await instance.connect(where, client=f"cli/{VERSION}")
    except instance.NotReachableError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        hub.fail(str(error))
    try:
        return await ask(link)
    finally:
        await link.channel.close(None)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # the number was given to another user's process
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _as_dict(reply: ingest_pb2.StatusReply) -> dict[str, Any]:
    """Every field, 64-bit integers as numbers."""
    fields: dict[str, Any] = MessageToDict(
        reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    numbers = {f.name for f in reply.DESCRIPTOR.fields if f.cpp_type in (f.CPPTYPE_INT64, f.CPPTYPE_UINT64)}
    routes = fields.pop("routes", [])
    for route in routes:
        route.update({name: int(route[name]) for name in ("lag_bytes", "lag_records")})
    return {name: int(value) if name in numbers else value for name, value in fields.items()} | {"routes": routes}


def _print_status(reply: ingest_pb2.StatusReply) -> None:
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "daemon", f"{reply.role}, version {reply.version}, pid {reply.pid}, {decimal(reply.rss_bytes)} of memory"
    )
    facts.add_row("home", Text(reply.home))
    facts.add_row("dashboard", Text(reply.http_url or "none in this daemon"))
    facts.add_row("log", f"{decimal(reply.wal_bytes)} of at most {decimal(reply.wal_quota_bytes)}")
    for route in reply.routes:
        line = f"{route.state}, {route.lag_records} records not committed yet"
        facts.add_row(Text(f"to {route.route}"), Text(f"{line}: {route.reason}" if route.reason else line))
    if reply.lost_records:
        line = f"{reply.lost_records:,} records since it started; which, and why: trackd verify PROJECT/RUN"
        facts.add_row(Text("declared lost", style="red"), Text(line))
    for warning in reply.warnings:
        facts.add_row(Text("warning", style="yellow"), Text(warning))
    hub.out.print(facts)

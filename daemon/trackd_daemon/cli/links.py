"""`trackd open`: a link into the dashboard, and a browser to follow it."""

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from trackd_proto import links
from trackd_proto.local import hub_client, places
from trackd_proto.local.hub_client import HubClient

from trackd_daemon.cli import hub

_JUMP = '<!doctype html><meta charset="utf-8"><title>trackd</title><meta http-equiv="refresh" content="0;url={}">'


def open_dashboard(
    target: Annotated[str, typer.Argument(metavar="[PROJECT[/RUN]]", help="Page to open; none: all projects.")] = "",
    print_only: Annotated[bool, typer.Option("--print", help="Print the link and open no browser.")] = False,
) -> None:
    """Open the dashboard, starting the hub if none runs. The link works once, within 15 minutes."""
    with hub.connected() as client:
        path = page(client, target)
        ticket = client.post("/tickets")["ticket"]
        link = f"{client.url}{path}#ticket={ticket}"
        typer.echo(link)
        if line := forward_line(client.url, os.environ):
            typer.echo(f"on your own computer, first run:  {line}", err=True)
        elif not print_only and has_display(os.environ):
            _browse(link)


def page(client: HubClient, target: str) -> str:
    """The path of the page, after a look whether there is such a thing. Raises NotFoundError."""
    if not target:
        return "/"
    project, run = hub.split(target)
    if run:
        client.get(hub_client.run_path(project, run))
        return links.run_path(project, run)
    if project not in {found["name"] for found in client.get("/projects")["projects"]}:
        raise hub_client.NotFoundError(f"no project {project!r} (trackd ls lists them)")
    return links.project_path(project)


def forward_line(url: str, environ: Mapping[str, str]) -> str:
    """The command that brings the hub's port to the computer one sits at; "" when not under SSH. Pure."""
    # SSH_CONNECTION: client address, client port, server address, server port.
    parts = environ.get("SSH_CONNECTION", "").split()
    if len(parts) != 4:
        return ""
    port = urlsplit(url).port
    user = environ.get("USER") or environ.get("LOGNAME")
    at = f"{user}@{parts[2]}" if user else parts[2]
    ssh_port = "" if parts[3] == "22" else f"-p {parts[3]} "
    return f"ssh -N {ssh_port}-L {port}:127.0.0.1:{port} {at}"


def has_display(environ: Mapping[str, str]) -> bool:
    """Whether a graphical browser could appear. Pure but for the platform."""
    return sys.platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def _browse(link: str) -> None:
    """Through a private file: every user of the machine can read a browser's arguments and so the ticket."""
    where = places.instance(hub.load_settings().home_path())
    path: Path = where.directory / "open.html"
    places.write_private(path, _JUMP.format(link).encode(), is_durable=False)
    webbrowser.open(path.as_uri())

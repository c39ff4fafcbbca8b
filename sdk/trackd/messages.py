"""What the user reads on stderr. Printing never fails and never raises into a training run."""

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Final

PREFIX: Final = "trackd: "

_silent = False
_quiet = False
_warned: set[str] = set()


def configure(*, silent: bool, quiet: bool) -> None:
    """How much is printed from now on: nothing (`silent`), or warnings and links only (`quiet`)."""
    global _silent, _quiet
    _silent, _quiet = silent, quiet


def say(*lines: str) -> None:
    """Ordinary news: left out when quiet."""
    if not _quiet:
        tell(*lines)


def tell(*lines: str) -> None:
    """Links and warnings: printed unless silent."""
    if _silent:
        return
    # stderr may be closed, None (pythonw, daemons) or a broken pipe.
    with contextlib.suppress(Exception):
        print(*(PREFIX + line for line in lines), sep="\n", file=sys.stderr, flush=True)


def warn_once(text: str, key: str = "") -> None:
    """Say a warning the first time in this process."""
    key = key or text
    if key not in _warned:
        _warned.add(key)
        tell("warning: " + text)


def link_lines(run_url: str, project_url: str, ticket: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The lines that show where a run can be seen; under SSH with the command that forwards the port."""
    fragment = f"#ticket={ticket}" if ticket else ""
    lines = [f"run      {run_url}{fragment}"]
    if project_url:
        lines.append(f"project  {project_url}")
    forward = ssh_line(run_url, environ)
    if forward:
        lines.append(f"from your own machine first: {forward}")
    return lines


def ssh_line(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """The `ssh -L` command that makes a loopback `url` reachable from where the user sits; "" when not under SSH."""
    connection = environ.get("SSH_CONNECTION", "").split()
    address, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    if len(connection) < 3 or address not in ("127.0.0.1", "localhost") or not port.isdecimal():
        return ""
    user = environ.get("USER") or environ.get("LOGNAME") or ""
    target = f"{user}@{connection[2]}" if user else connection[2]
    return f"ssh -N -L {port}:127.0.0.1:{port} {target}"

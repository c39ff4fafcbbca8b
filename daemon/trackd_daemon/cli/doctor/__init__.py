"""`trackd doctor`: looks at this machine and says what to do. Starts nothing, changes nothing, needs no daemon."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text
from trackd_proto import settings as settings_table
from trackd_proto.layout import Instance
from trackd_proto.local import places
from trackd_proto.settings import Settings

from trackd_daemon.cli import hub
from trackd_daemon.cli.doctor import backlog, files, host, locks, network
from trackd_daemon.cli.doctor.gather import gather
from trackd_daemon.doctor import facts, machine, parts
from trackd_daemon.doctor.findings import Finding, is_trouble, worst_first

TIMEOUT_S: Final = 2.0
"""Of all probes together; loading the program comes on top."""
_STYLES: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "trouble": "red"}


def register(app: typer.Typer) -> None:
    """Add doctor to the command line."""
    app.command("doctor")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check this machine for trackd, and say what to do. Exits with 1 if something does not work.

    It starts nothing, changes nothing and needs no daemon.
    """
    loaded = settings_table.load()
    where = places.instance(loaded.settings.home_path())
    started = time.monotonic()
    found = [Finding("settings", "trouble", p.message, "`trackd config list --origin`") for p in loaded.problems]
    found += diagnose(gather(probes(where, loaded.settings), TIMEOUT_S), where, loaded.settings)
    found = worst_first(found)
    if as_json:
        hub.print_json(
            {
                "ok": not is_trouble(found),
                "home": str(where.home),
                "directory": str(where.directory),
                "seconds": round(time.monotonic() - started, 3),
                "findings": [asdict(finding) for finding in found],
            }
        )
    else:
        _print(found, where)
    if is_trouble(found):
        raise typer.Exit(1)


def probes(where: Instance, settings: Settings) -> dict[str, Callable[[], Any]]:
    """What is looked at, by name."""
    return {
        "directories": lambda: files.see_places(where),
        "disk": lambda: (files.see_disk(where), files.see_budget(where, settings)),
        "lock": lambda: locks.see_lock(where),
        "daemon": lambda: network.see_daemon(where),
        "socket": lambda: network.see_socket(where),
        "cookies": lambda: files.see_cookies(where, settings),
        "clock": lambda: files.see_clock(where),
        "versions": host.see_versions,
        "formats": lambda: files.see_formats(where),
        "upstream": lambda: network.see_upstream(where, settings),
        "unsent": lambda: backlog.see_backlog(where),
        "memory": lambda: files.see_memory(where),
        "GPU": host.see_gpu,
    }


def diagnose(seen: Mapping[str, Any], where: Instance, settings: Settings) -> list[Finding]:
    """Every finding. A group of facts that could not be had is a finding itself. Pure."""
    checks: list[tuple[tuple[str, ...], Callable[..., Iterable[Finding]]]] = [
        (("directories",), machine.check_places),
        (("disk",), lambda disk: machine.check_disk(*disk)),
        (("memory",), machine.check_memory),
        (("lock", "daemon"), lambda lock, daemon: [parts.check_lock(lock, daemon)]),
        (
            ("lock", "daemon", "socket"),
            lambda lock, daemon, path: parts.check_daemon(lock, daemon, path, str(where.log)),
        ),
        (("cookies",), lambda cookies: [parts.check_cookie(cookie) for cookie in cookies]),
        (("clock",), machine.check_clock),
        (
            ("versions", "formats"),
            lambda versions, formats: parts.check_versions(versions, formats, has_upstream=bool(settings.upstream)),
        ),
        (("versions", "daemon"), lambda versions, daemon: parts.check_daemon_version(daemon, versions.own)),
        (("upstream",), parts.check_upstream),
        (("unsent",), parts.check_backlog),
        (("GPU",), machine.check_gpu),
    ]
    found: list[Finding] = []
    for names, check in checks:
        needed = [seen[name] for name in names]
        if not any(isinstance(each, facts.Failed) for each in needed):
            found += check(*needed)
    return found + [_unknown(name, each) for name, each in seen.items() if isinstance(each, facts.Failed)]


def _unknown(name: str, failed: facts.Failed) -> Finding:
    if name == "GPU":  # a GPU that is not measured stops nobody from logging
        return Finding(name, "warning", f"could not be looked at: {failed.reason}", "see whether `nvidia-smi` works")
    advice = "see whether the disk and the network answer, then run doctor again"
    return Finding(name, "trouble", f"could not be looked at: {failed.reason}", advice)


def _print(found: list[Finding], where: Instance) -> None:
    table = Table("", "check", "finding", box=None)
    for finding in found:
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold" if finding.level == "trouble" else "")
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.check, text)
    hub.out.print(table)
    counts = [(sum(f.level == level for f in found), level) for level in ("trouble", "warning")]
    said = ", ".join(f"{count} × {level}" for count, level in counts if count)
    typer.echo(f"{where.directory}: {said or 'nothing to do'}", err=True)

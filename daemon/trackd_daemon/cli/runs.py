"""Commands about projects and runs: clients of the hub's HTTP API."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from trackd_proto.local import hub_client, places
from trackd_proto.local.hub_client import HubClient, project_path, run_path

from trackd_daemon.cli import hub, verify
from trackd_daemon.cli.export import export_run
from trackd_daemon.cli.links import open_dashboard

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunTarget = Annotated[str, typer.Argument(metavar="PROJECT/RUN")]
Target = Annotated[str, typer.Argument(metavar="PROJECT[/RUN]")]

_COLOURS = {
    "running": "green", "failed": "red", "crashed": "red", "killed": "red", "preempted": "yellow",
    "lost contact": "yellow",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add open, ls, show, export, delete, move, rename and verify to the command line."""
    app.command("open")(open_dashboard)
    app.command("ls")(list_runs)
    app.command("show")(show_run)
    app.command("export")(export_run)
    app.command("delete")(delete)
    app.command("move")(move_run)
    app.command("rename")(rename)
    app.command("verify")(verify_run)


def list_runs(
    project: Annotated[str, typer.Argument(metavar="[PROJECT]", help="None: the projects.")] = "",
    where: Annotated[
        str, typer.Option("--where", "-w", help='Filter, as "config.lr < 0.1 and state = finished".')
    ] = "",
    sort: Annotated[str, typer.Option("--sort", "-s", help="Path, - before it for descending.")] = "-created",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many runs.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the projects, or the runs of one."""
    with hub.connected() as client:
        projects = client.get("/projects")["projects"]
        if not project:
            _print_projects(projects, as_json)
            return
        name, run = hub.split(project)
        if run:
            hub.fail(f"{project!r} is a run: trackd show {project}", 2)
        if name not in {found["name"] for found in projects}:
            hub.fail(f"no project {name!r} (trackd ls lists them)")
        page = client.get(f"{project_path(name)}/runs", {"where": where, "sort": sort, "limit": limit})
        _print_runs(page, as_json)


def _print_projects(projects: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        hub.print_json(projects)
        return
    if not projects:
        typer.echo("no projects yet: the first trackd.init() makes one", err=True)
        return
    table = Table("project", "runs", "live", "last activity", box=None)
    for p in projects:
        table.add_row(Text(p["name"]), str(p["runs"]), str(p["live"] or ""), _when(p["updated_us"]))
    hub.out.print(table)


def _print_runs(page: dict[str, Any], as_json: bool) -> None:
    if as_json:
        hub.print_json(page["runs"])
        return
    table = Table("run", "name", "state", "created", "duration", "rows", "summary", box=None)
    for r in page["runs"]:
        state = Text(r["state"], style=_COLOURS.get(r["state"], ""))
        if r["cause"]:
            state.append(f" ({_short(r['cause'], 40)})", style="dim")
        summary = " ".join(f"{k}={_short(v)}" for k, v in list(r["summary"].items())[:4])
        table.add_row(
            Text(r["run_id"]), Text(r["name"] or ""), state, _when(r["created_us"]), _duration(r["duration_s"]),
            str(r["rows"]), Text(summary, no_wrap=True, overflow="ellipsis"),
        )  # fmt: skip
    hub.out.print(table)
    if page["total"] > len(page["runs"]):
        typer.echo(f"{page['total'] - len(page['runs'])} more: --limit, --where", err=True)


def show_run(target: RunTarget, as_json: AsJson = False) -> None:
    """Show one run: state, config, summary, keys."""
    project, run = hub.split_run(target)
    with hub.connected() as client:
        facts = client.get(run_path(project, run))
        keys = client.get(f"{run_path(project, run)}/keys")["keys"]
    if as_json:
        hub.print_json({**facts, "keys": keys})
        return
    table = Table(box=None, show_header=False)
    for field in (
        "run_id",
        "name",
        "project",
        "state",
        "cause",
        "exit_code",
        "notes",
        "group",
        "job_type",
        "user",
        "host",
    ):
        if facts[field] not in (None, ""):
            table.add_row(field, Text(str(facts[field])))
    table.add_row("tags", Text(", ".join(facts["tags"])))
    table.add_row("created", _when(facts["created_us"]))
    table.add_row("duration", _duration(facts["duration_s"]))
    table.add_row("rows", str(facts["rows"]))
    if facts["lost_records"]:
        table.add_row("lost records", Text(f"{facts['lost_records']} (trackd verify {target})", style="red"))
    hub.out.print(table)
    if facts["traceback"]:
        hub.out.print(Text(facts["traceback"], style="red"))
    _print_values("config", facts["config"])
    _print_values("summary", facts["summary"])
    _print_keys(keys)


def _print_values(title: str, values: dict[str, Any]) -> None:
    if values:
        table = Table("", "", box=None, show_header=False, title=title, title_justify="left")
        for key, value in values.items():
            table.add_row(Text(key), Text(_short(value, 120)))
        hub.out.print(table)


def _print_keys(keys: list[dict[str, Any]]) -> None:
    if keys:
        table = Table("key", "points", "last", "min", "max", box=None, title="logged", title_justify="left")
        for k in keys:
            table.add_row(Text(k["key"]), str(k["count"]), Text(_short(k["last"])), _short(k["min"]), _short(k["max"]))
        hub.out.print(table)


def delete(target: Target, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a run, or a project with all its runs. There is no way back."""
    project, run = hub.split(target)
    with hub.connected() as client:
        path = run_path(project, run) if run else project_path(project)
        what = f"run {target}" if run else f"project {project} with its {_run_count(client, project)} runs"
        if not yes:
            if not sys.stdin.isatty():
                hub.fail(f"{what} was not deleted: say --yes where nobody can be asked")
            typer.confirm(f"Delete {what}? There is no way back.", abort=True)
        client.delete(path)
    typer.echo(f"deleted {what}")


def _run_count(client: HubClient, project: str) -> int:
    for found in client.get("/projects")["projects"]:
        if found["name"] == project:
            return int(found["runs"])
    raise hub_client.NotFoundError(f"no project {project!r} (trackd ls lists them)")


def move_run(target: RunTarget, new_project: Annotated[str, typer.Argument(metavar="NEW_PROJECT")]) -> None:
    """Move a run to another project, which is made if there is none."""
    project, run = hub.split_run(target)
    with hub.connected() as client:
        client.patch(run_path(project, run), {"project": new_project})
    typer.echo(f"{new_project}/{run}")


def rename(target: Target, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Give a run another name (its id stays), or a project."""
    project, run = hub.split(target)
    with hub.connected() as client:
        client.patch(run_path(project, run) if run else project_path(project), {"name": name})
    typer.echo(f"{target} is now called {name}")


def verify_run(
    target: RunTarget,
    directory: Annotated[
        list[Path] | None,
        typer.Option("--dir", metavar="RUN_DIR", help="The run's directory, if it is not in a usual place."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was logged with what the hub holds, by count and rolling hash. Exit code 0 only if all agree."""
    project, run = hub.split_run(target)
    home = hub.load_settings().home_path()
    roots = directory or verify.usual_roots(home)
    with hub.connected() as client:
        stored = client.get(f"{run_path(project, run)}/writers")["writers"]
        missing = verify.without_parent(client.get(f"{run_path(project, run)}/attempts")["attempts"])
    try:
        logged, used = verify.logged_here(run, places.instance(home), verify.run_directories(run, roots))
    except ValueError as error:
        hub.fail(str(error))
    verdicts = verify.compare(logged, stored, verify.damaged_heads(places.instance(home).spool))
    is_good = verify.is_good(verdicts) and not missing
    if as_json:
        hub.print_json(
            {
                "ok": is_good,
                "directories": [str(path) for path in used],
                "writers": verify.to_json(verdicts),
                "problems": missing,
            }
        )
    else:
        _print_verdicts(verdicts, used)
        for problem in missing:
            typer.echo(problem)
    if not any(v.is_checked for v in verdicts):
        searched = ", ".join(str(root) for root in roots)
        hub.fail(f"nothing here says what was logged (searched {searched}): give --dir RUN_DIR")
    if missing and verify.is_good(verdicts):
        hub.fail(f"every record of {target} is there, and not what it inherits")
    if not is_good:
        hub.fail(f"{sum(bool(v.problem) for v in verdicts)} of {len(verdicts)} writers differ")


def _print_verdicts(verdicts: list[verify.Verdict], used: list[Path]) -> None:
    table = Table("writer", "role", "logged", "stored", "", box=None)
    for v in verdicts:
        word = Text(v.problem, style="red") if v.problem else Text("ok" if v.is_checked else "no local note", "green")
        table.add_row(v.writer_id[-12:], v.role, "?" if v.logged is None else str(v.logged), str(v.stored), word)
    hub.out.print(table)
    for path in used:
        typer.echo(f"compared with {path / 'logged.json'}", err=True)


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _short(value: Any, width: int = 24) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= width else text[: width - 1] + "…"

"""`trackd config list`: every setting, its value, and where that came from."""

import os
from typing import Annotated, Any

import msgspec
import typer
from trackd_proto import settings as table
from trackd_proto.settings import Loaded


def register(app: typer.Typer) -> None:
    """Add ``config`` to the command line."""
    config = typer.Typer(no_args_is_help=True, help="Show the settings and where they come from.")
    config.command("list")(list_settings)
    app.add_typer(config, name="config")


def list_settings(
    origin: Annotated[bool, typer.Option("--origin", help="Also show where each value comes from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show every setting. Exits with 1 if a file or variable holds a value that cannot be used."""
    loaded = table.load()
    lines = to_json(loaded) if as_json else "\n".join(to_lines(loaded, with_origin=origin))
    typer.echo(lines)
    for problem in loaded.problems:
        typer.echo(f"error: {problem.message}", err=True)
    if loaded.problems:
        raise typer.Exit(1)


def to_lines(loaded: Loaded, *, with_origin: bool) -> list[str]:
    """``name = value`` in TOML's notation, aligned, with the origin as a comment."""
    pairs = [(name, toml(getattr(loaded.settings, name))) for name in table.NAMES]
    name_width = max(len(name) for name, _ in pairs)
    lines = [f"{name:<{name_width}} = {value}" for name, value in pairs]
    if not with_origin:
        return lines
    width = min(60, max(map(len, lines)))
    return [f"{line:<{width}}  # {loaded.origins[name]}" for line, (name, _) in zip(lines, pairs, strict=True)]


def to_json(loaded: Loaded) -> str:
    """A list of objects: name, value, origin, variable, description."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "value": getattr(loaded.settings, name),
            "origin": loaded.origins[name],
            "variable": table.variable(name),
            "description": table.meta(name).description,
        }
        for name in table.NAMES
    ]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()


def toml(value: Any) -> str:
    """A value as it would stand in ``trackd.toml``."""
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    # JSON and TOML write texts, booleans and numbers alike.
    return msgspec.json.encode(value).decode()

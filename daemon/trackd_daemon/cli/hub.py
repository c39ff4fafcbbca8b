"""What the commands that talk to the hub share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from trackd_proto import settings
from trackd_proto.local.hub_client import HubClient, HubError
from trackd_proto.local.places import UnsafePlaceError
from trackd_proto.settings import Settings

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def load_settings() -> Settings:
    """This user's settings; what is wrong with them is said on stderr."""
    loaded = settings.load()
    for problem in loaded.problems:
        typer.echo(f"warning: {problem.message}", err=True)
    return loaded.settings


@contextmanager
def connected() -> Iterator[HubClient]:
    """The hub, started if none runs. An error of the hub ends the command with its message and exit code 1."""
    try:
        yield HubClient.of_settings(load_settings())
    except (HubError, UnsafePlaceError) as error:
        fail(str(error))


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong and leave."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def split(target: str) -> tuple[str, str]:
    """(project, run id or "") of ``PROJECT[/RUN]``."""
    project, _, run = target.strip("/").partition("/")
    if not project or "/" in run:
        fail(f"{target!r} is not PROJECT or PROJECT/RUN", 2)
    return project, run


def split_run(target: str) -> tuple[str, str]:
    """(project, run id) of ``PROJECT/RUN``."""
    project, run = split(target)
    if not run:
        fail(f"{target!r} names no run: give PROJECT/RUN (trackd ls {project} lists them)", 2)
    return project, run


def print_json(value: Any) -> None:
    """For programs: one JSON document. NaN and infinities are strings, as in the HTTP API."""
    data = msgspec.json.format(msgspec.json.encode(json_safe(value)), indent=2)
    sys.stdout.write(data.decode() + "\n")


def json_safe(value: Any) -> Any:
    """What JSON cannot say as strings, as `docs/http-api.md` has it. Pure."""
    if isinstance(value, float):
        return value if value - value == 0.0 else "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= 2**53 else f"int:{value}"
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    return [json_safe(item) for item in value] if isinstance(value, list) else value

"""`trackd export`: one run's history as a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from trackd_proto.local import hub_client

from trackd_daemon.cli import hub

_PART_BYTES = 1 << 18


class Format(str, Enum):
    """Kinds of file."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def export_run(
    target: Annotated[str, typer.Argument(metavar="PROJECT/RUN")],
    format: Annotated[
        Format | None, typer.Option("--format", "-f", help="Default: from FILE's name, else csv.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="- for stdout.")] = "",
    system: Annotated[bool, typer.Option("--system", help="The machine's metrics instead of what was logged.")] = False,
) -> None:
    """Write a run's whole history to a file. The file appears when it is complete."""
    project, run = hub.split_run(target)
    kind = (format or _by_name(output)).value
    name = output or f"{run}.{kind}"
    params = {"format": kind, "stream": "system" if system else "default"}
    with (
        hub.connected() as client,
        client.open(hub_client.run_path(project, run) + "/export", params) as answer,
        _progress(name) as progress,
        _target(name) as file,
    ):
        task = progress.add_task(name, total=None)
        try:
            for part in answer.stream(_PART_BYTES):
                file.write(part)
                progress.advance(task, len(part))
        except hub_client.BROKEN as error:
            raise hub_client.NoHubError(f"the hub broke off; {name} was not written: try again") from error
    if name != "-":
        typer.echo(name)


def _by_name(output: str) -> Format:
    suffix = Path(output).suffix.lstrip(".").lower()
    return Format(suffix) if suffix in Format.__members__ else Format.csv


def _progress(name: str) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeElapsedColumn(), console=hub.err, transient=True, disable=name == "-")


@contextmanager
def _target(name: str) -> Iterator[BinaryIO]:
    """The file to write: complete under its name, or not there at all."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        hub.fail(f"cannot write {name}: {error.strerror or error}")
    finally:
        partial.unlink(missing_ok=True)

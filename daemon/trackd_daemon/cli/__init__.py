"""The `trackd` command."""

import sys


def main() -> None:
    """Entry point. A spawned daemon goes straight to work; everything else loads the command line first."""
    if sys.argv[1:3] == ["serve", "--spawned"]:
        from trackd_daemon.cli.spawned import run  # noqa: PLC0415  (typer costs 100 ms and memory)

        sys.exit(run(sys.argv[3:]))
    from trackd_daemon.cli.root import app  # noqa: PLC0415

    app()

"""Assembles the command line."""

import typer

from trackd_daemon.cli import config, daemon, doctor, flush, runs

app = typer.Typer(
    name="trackd",
    help="Track experiments: the daemon, and what it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
daemon.register(app)
doctor.register(app)
flush.register(app)
runs.register(app)
config.register(app)

"""How a client starts the daemon: `trackd serve --spawned --ready-fd N`, without the cost of a command line library."""

from collections.abc import Sequence

from trackd_daemon import app, roles


def run(arguments: Sequence[str]) -> int:
    """The daemon's exit code. Unknown arguments of a newer client are left alone."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    ready_fd = int(given.get("--ready-fd", "-1"))
    role = given.get("--role", roles.AGENT_AND_HUB)
    return app.serve(roles.Options(app.load_settings(), role=role, is_spawned=True), is_spawned=True, ready_fd=ready_fd)

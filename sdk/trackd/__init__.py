"""trackd: an experiment tracker that training cannot feel and that never loses a point.

    import trackd

    with trackd.init(project="digits", config={"lr": 0.1}) as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1)})

`import trackd` starts nothing: no thread, no socket, no process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trackd_proto.version import VERSION as __version__

from trackd.arguments import Settings
from trackd.config import Config
from trackd.current import PreInit
from trackd.current import log as log
from trackd.errors import ConfigError, Error, ResumeError, ResumeUnknownError, UnsupportedPlatformError, UsageError
from trackd.init import init
from trackd.run import Run
from trackd.summary import Summary

if TYPE_CHECKING:
    from trackd.api import Api

    config: Config
    summary: Summary
else:
    config = PreInit("config")
    summary = PreInit("summary")

run: Run | None = None
"""The run that the module-level names mean, or None."""


def finish(exit_code: int | None = None, quiet: bool | None = None, wait_s: float | None = None) -> None:
    """End the current run (see `Run.finish`); does nothing when there is none. `quiet` has no effect."""
    if run is not None:
        run.finish(exit_code, wait_s)


def __getattr__(name: str) -> Any:
    if name == "Api":
        return import_module("trackd.api").Api  # it brings an HTTP client, which training does without
    raise AttributeError(f"module 'trackd' has no attribute {name!r}")


__all__ = [
    "Api",
    "Config",
    "ConfigError",
    "Error",
    "ResumeError",
    "ResumeUnknownError",
    "Run",
    "Settings",
    "Summary",
    "UnsupportedPlatformError",
    "UsageError",
    "__version__",
    "config",
    "finish",
    "init",
    "log",
    "run",
    "summary",
]

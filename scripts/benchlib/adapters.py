"""The three trackers behind one small face, so that every probe does the same to each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Started:
    """A run under way."""

    log: Callable[[dict[str, Any]], object]
    finish: Callable[[], object]
    run: Any = None


def load(tool: str) -> Any:
    """Imports the tracker; `bare` stands for none."""
    if tool == "bare":
        return None
    return __import__(tool)


def start(tool: str, module: Any) -> Started:
    """Starts a run with the tool's defaults, keeping its data on this machine (wandb: offline)."""
    if tool == "trackd":
        run = module.init(project="bench")
        return Started(run.log, run.finish, run)
    if tool == "trackd-offline":
        run = module.init(project="bench", mode="offline")
        return Started(run.log, run.finish, run)
    if tool == "wandb":
        run = module.init(project="bench", mode="offline")
        return Started(run.log, run.finish, run)
    if tool == "trackio":
        run = module.init(project="bench")
        return Started(run.log, module.finish, run)
    if tool == "bare":
        return Started(lambda row: None, lambda: None)
    raise ValueError(f"unknown tracker {tool!r}")

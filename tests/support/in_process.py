"""A daemon in the test's own event loop: its parts can be looked at, and made to fail."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from trackd_daemon import roles
from trackd_proto.settings import Settings


@contextlib.asynccontextmanager
async def running(home: Path, settings: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[roles.Daemon]:
    """It runs, and looks around twenty times a second."""
    daemon = roles.Daemon(
        roles.Options(Settings(home=str(home), **(settings or {})), **{"watch_s": 0.05} | options), lambda _grace: None
    )
    try:
        await daemon.start()
        yield daemon
    finally:
        await asyncio.wait_for(daemon.stop(1.0), 30)
        daemon.where.published.unlink(missing_ok=True)  # it names this process, and its like are ended with the test


async def until(is_so: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Until it is so; `what` names it in the failure."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)

"""Daemons in the foreground, for tests that need their own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trackd_proto.layout import Instance
from trackd_proto.local import instance


def wait_for(is_so: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Until it is so; `what` names it in the failure."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def serving(home: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground."""
    log = (home / "serve.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-c", "from trackd_daemon.cli import main; main()", "serve", *arguments],
        env=os.environ | {"TRACKD_HOME": str(home)} | environ, stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready(where: Instance) -> bool:
    """Somebody listens."""
    return instance.is_listening(where)

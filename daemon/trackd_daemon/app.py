"""The daemon as a program: start, signals, stop.

Exit codes: 0 done, 1 cannot start, 3 another daemon runs, 78 the data is of a newer version.
"""

import asyncio
import contextlib
import faulthandler
import itertools
import logging
import os
import signal
import sys
from typing import Final

from trackd_proto import settings
from trackd_proto.local.instance import NEWER_DATA, READY
from trackd_proto.segment import UnsupportedVersion

from trackd_daemon import roles
from trackd_daemon.lifecycle import process
from trackd_daemon.lifecycle.ownership import BusyError

EXIT_BUSY: Final = 3
EXIT_NEWER: Final = 78
_GRACE_S: Final = 10.0
_log = logging.getLogger("trackd")


def serve(options: roles.Options, *, is_spawned: bool = False, ready_fd: int = -1) -> int:
    """Run a daemon until it is told to stop; the exit code."""
    process.settle()
    if is_spawned:
        process.step_back()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        faulthandler.enable()
    readiness = _Readiness(ready_fd)
    try:
        return asyncio.run(_run(options, readiness))
    except BusyError as error:
        return readiness.failed(str(error), EXIT_BUSY)
    except UnsupportedVersion as error:
        text = f"the data under {options.settings.home_path()} was written by a newer trackd ({error}): update trackd"
        return readiness.failed(text + "; nothing was touched", EXIT_NEWER, NEWER_DATA)
    except (OSError, ValueError, roles.ConfigurationError) as error:
        return readiness.failed(str(error), 1)
    finally:
        readiness.close()


def load_settings() -> settings.Settings:
    """The settings of this user; problems in files and variables go to the log."""
    loaded = settings.load()
    for problem in loaded.problems:
        _log.warning("%s", problem.message)
    return loaded.settings


class _Readiness:
    """Tells the process that waits for the start how it went."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        self._say(READY)

    def failed(self, text: str, code: int, kind: str = "") -> int:
        _log.error("%s", text)
        self._say((kind + text).encode())
        return code

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _say(self, data: bytes) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, data)
        self.close()


async def _run(options: roles.Options, readiness: _Readiness) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(process.workers())
    stopping: asyncio.Future[float] = loop.create_future()

    def stop(grace_s: float = _GRACE_S) -> None:
        if not stopping.done():
            stopping.set_result(grace_s)

    signals = itertools.count(1)

    def on_signal() -> None:
        if next(signals) > 1:
            _log.warning("stopping now: a second signal came")
            os._exit(1)  # everything acknowledged is on the disk; that is what the log is for
        stop()

    daemon = roles.build(options, stop)
    try:
        await daemon.start()
        loop.add_signal_handler(signal.SIGTERM, on_signal)
        if options.is_spawned:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the job that needed a daemon first
        else:
            loop.add_signal_handler(signal.SIGINT, on_signal)
        with contextlib.suppress(ValueError, OSError):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        readiness.ready()
        _log.info("trackd %s is ready: %s", options.role, daemon.where.directory)
        await stopping
        _log.info("stopping")
    finally:
        await daemon.stop(0.0 if not stopping.done() else stopping.result())
    return 0

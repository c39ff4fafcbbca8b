"""A polite SIGTERM: schedulers send it before they kill, and Python dies of it without a word."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Final

from trackd_proto import records

from trackd import current
from trackd.ending import Ending

_CODE: Final = 128 + signal.SIGTERM


def watch_sigterm() -> None:
    """Only where nobody else handles it, and only from the main thread (elsewhere Python refuses)."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def release_sigterm() -> None:
    """Give SIGTERM back when no run is open, if it is still ours."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """One record per run, then die as if we had not been here. Forked children only die."""
    with contextlib.suppress(Exception):
        for run in current.runs():
            if run.is_owner and not run.disabled:
                run._lane.append(records.EXIT, Ending("killed", _CODE, "SIGTERM").body())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)

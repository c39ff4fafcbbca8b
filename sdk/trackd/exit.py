"""However the program ends, its runs get the right state: installed by the first `init()`, once per process.

Left to the courier: SIGKILL, `os._exit`, and what kills the interpreter itself.
"""

import atexit
import builtins
import contextlib
import os
import sys
import threading
from types import TracebackType
from typing import Any

import msgspec

from trackd import current, finishing, signals
from trackd.ending import Ending

_ending: Ending | None = None
_pid = 0


def install() -> None:
    """Watch for the end of this process. Changes `sys.excepthook`, `sys.exit`, `exit()`, unused signals."""
    global _pid, _ending
    is_first = _pid == 0
    if _pid != os.getpid():
        _pid, _ending = os.getpid(), None
    if is_first:
        atexit.register(_at_exit)
        _watch_exceptions()
        _watch_sys_exit()
        _watch_quitters()
    signals.watch()


def _at_exit() -> None:
    # The interpreter must go on leaving whatever happens here, and the data is on disk already.
    with contextlib.suppress(BaseException):
        for run in current.attached():
            run.close(Ending("finished"))
    with contextlib.suppress(BaseException):
        known = _ending if _ending and _pid == os.getpid() else None
        finishing.finish(current.runs(), known or Ending("finished", is_assumed=True))


def _watch_exceptions() -> None:
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        global _ending
        _ending = Ending.of_error(error)
        return previous(kind, error, trace)

    sys.excepthook = hook


def _watch_sys_exit() -> None:
    previous = sys.exit

    def exit(status: Any = None, /) -> Any:
        _note_exit(status)
        return previous(status)

    exit.__doc__ = previous.__doc__
    sys.exit = exit


def _watch_quitters() -> None:
    """`exit(n)` and `quit(n)` of the site module, which many scripts use for `sys.exit(n)`."""
    kind = type(getattr(builtins, "exit", None))
    if kind.__module__ != "_sitebuiltins":
        return
    previous = kind.__call__

    def call(self: Any, code: Any = None) -> Any:
        _note_exit(code)
        return previous(self, code)

    kind.__call__ = call  # type: ignore[method-assign]


def _note_exit(status: object) -> None:
    # Somebody may catch the SystemExit and go on: only assumed until the process has ended with that code.
    global _ending
    if threading.current_thread() is threading.main_thread():
        _ending = msgspec.structs.replace(Ending.of_exit(status), is_assumed=True)

"""finish() while the daemon cannot answer."""

import os
import signal
import time
from typing import Any

import psutil

from benchlib import adapters


def probe(tool: str, signal_name: str, calls: int = 100) -> dict[str, Any]:
    """Sends the signal to this home's daemon when everything has been logged; the parent times the process's end."""
    module = adapters.load(tool)
    started = adapters.start(tool, module)
    for i in range(calls):
        started.log({"loss": 1.0 / (i + 1)})
        time.sleep(0.01)
    daemons = _daemons()
    for process in daemons:
        process.send_signal(getattr(signal, signal_name))
    before = time.monotonic()
    started.finish()
    return {"before_finish": before, "daemons": len(daemons)}


def _daemons() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            is_daemon = "serve" in process.cmdline() or any("trackd_daemon" in w for w in process.cmdline())
            if is_daemon and os.environ["TRACKD_HOME"] in [*process.environ().values(), *process.cmdline()]:
                found.append(process)
        except psutil.Error:
            continue
    return found

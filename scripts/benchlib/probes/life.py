"""import, init() and finish(), each in milliseconds; the parent takes the end of the process."""

import time
from typing import Any

from benchlib import adapters


def probe(tool: str, calls: int = 100) -> dict[str, Any]:
    before = time.perf_counter()
    module = adapters.load(tool)
    loaded = time.perf_counter()
    started = adapters.start(tool, module)
    ready = time.perf_counter()
    for i in range(calls):
        started.log({"loss": 1.0 / (i + 1), "accuracy": i / calls})
        time.sleep(0.002)
    last = time.monotonic()
    begin = time.perf_counter()
    started.finish()
    end = time.perf_counter()
    return {
        "import": (loaded - before) * 1e3,
        "init": (ready - loaded) * 1e3,
        "finish": (end - begin) * 1e3,
        "before_finish": last,  # CLOCK_MONOTONIC, the same in the parent
    }

"""log() in a tight loop, from the first call after init()."""

import time
from typing import Any

from benchlib import adapters, rows, stats


def probe(tool: str, scalars: int, calls: int, kind: str = "float") -> dict[str, Any]:
    """Microseconds of each call, and the CPU that the whole process spent per call."""
    module = adapters.load(tool)
    cycle = rows.rows(scalars, kind)
    times = [0] * calls
    clock = time.perf_counter_ns
    started = adapters.start(tool, module)
    log = started.log
    cpu = time.process_time_ns()
    for i in range(calls):
        row = cycle[i & 63]
        before = clock()
        log(row)
        times[i] = clock() - before
    cpu = time.process_time_ns() - cpu
    started.finish()
    return stats.spread(times) | {"cpu": cpu / calls / 1e3, "first": times[0] / 1e3}

"""log() in a loop that computes for about a millisecond between calls, as training does."""

import time
from typing import Any

import numpy as np

from benchlib import adapters, rows, stats


def probe(tool: str, scalars: int, calls: int) -> dict[str, Any]:
    """Microseconds of each call."""
    module = adapters.load(tool)
    cycle = rows.rows(scalars)
    size = _size_of_a_millisecond()
    left, right = np.random.default_rng(0).random((2, size, size))
    out = np.empty_like(left)
    times = [0] * calls
    clock = time.perf_counter_ns
    started = adapters.start(tool, module)
    log = started.log
    for i in range(calls):
        np.matmul(left, right, out=out)
        row = cycle[i & 63]
        before = clock()
        log(row)
        times[i] = clock() - before
    started.finish()
    return stats.spread(times)


def _size_of_a_millisecond() -> int:
    for size in range(64, 1024, 32):
        left = np.ones((size, size))
        best = 1.0
        for _ in range(5):
            before = time.perf_counter()
            left @ left
            best = min(best, time.perf_counter() - before)
        if best >= 0.001:
            return size
    return 1024

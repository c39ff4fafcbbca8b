"""How long a busy thread is kept from running in the first second after init()."""

import time
from typing import Any

from benchlib import adapters


def probe(tool: str, seconds: float = 1.0, threshold_ms: float = 0.5) -> dict[str, Any]:
    """The longest gap between two readings of the clock, and the sum of those over `threshold_ms`."""
    module = adapters.load(tool)
    clock = time.perf_counter_ns
    gaps = []
    limit = int(threshold_ms * 1e6)
    started = adapters.start(tool, module)
    last = clock()
    end = last + int(seconds * 1e9)
    while last < end:
        now = clock()
        if now - last > limit:
            gaps.append(now - last)
        last = now
    started.finish()
    return {"longest": max(gaps, default=0) / 1e6, "total": sum(gaps) / 1e6, "gaps": len(gaps)}

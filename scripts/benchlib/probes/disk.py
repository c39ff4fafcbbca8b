"""Writes a known number of points; the parent weighs what is left on disk."""

import time
from typing import Any

from benchlib import adapters, rows


def probe(tool: str, calls: int, decimals: int | None = None, per_s: float = 0) -> dict[str, Any]:
    """5 scalars per row; `per_s` holds the loop to that many calls a second (0: as fast as it goes)."""
    import random  # noqa: PLC0415

    module = adapters.load(tool)
    started = adapters.start(tool, module)
    chance = random.Random(3)
    names = list(rows.rows(5)[0])
    begin = time.monotonic()
    for i in range(calls):
        values = [chance.random() for _ in names]
        if decimals is not None:
            values = [round(v, decimals) for v in values]
        started.log(dict(zip(names, values, strict=True)))
        if per_s and i % 100 == 99:
            time.sleep(max(0.0, begin + (i + 1) / per_s - time.monotonic()))
    run_id = getattr(started.run, "id", None)
    started.finish()
    return {"points": calls * len(names), "run_id": str(run_id)}

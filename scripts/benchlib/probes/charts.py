"""Chart queries over one long series, with a spike of one step to find at every zoom."""

import json
import struct
import time
from array import array
from typing import Any

from trackd_proto.local.hub_client import HubClient

from benchlib import adapters, hub, stats

KEY = "noise"


def probe(tool: str, points: int, queries: int = 40) -> dict[str, Any]:
    """Milliseconds of a query, p50 and p95 over zooms from the whole to a ten-thousandth; `missed`: zooms without the
    spike."""
    module = adapters.load(tool)
    started = adapters.start(tool, module)
    asked = hub.client()
    spike = points * 5 // 7
    log = started.log
    for i in range(points):
        log({KEY: 1e6 if i == spike else (i * 0.618034) % 1.0})
    hub.wait_for_rows(asked, started.run, KEY, points)
    times, missed = [], 0
    for query in range(queries):
        width = points / 10 ** (4 * query / max(1, queries - 1))
        start = max(0.0, spike - width * 0.4)
        begin = time.perf_counter_ns()
        highest = _chart(asked, started.run, start, start + width)
        times.append(time.perf_counter_ns() - begin)
        missed += highest != 1e6
    started.finish()
    ordered = sorted(times)
    return {
        "p50": stats.quantile(ordered, 0.5) / 1e6,
        "p95": stats.quantile(ordered, 0.95) / 1e6,
        "missed": missed,
    }


def _chart(asked: HubClient, run: Any, start: float, end: float) -> float:
    """The maximum that the answer shows (the binary form of docs/http-api.md)."""
    question = {"runs": [[run.project, run.id]], "keys": [KEY], "buckets": 500, "start": start, "end": end}
    answer = hub.post(asked, "/charts", question)
    (length,) = struct.unpack_from("<I", answer)
    header = json.loads(answer[4 : 4 + length])
    begin = -(-(4 + length) // 8) * 8
    series = header["series"][0]
    column = series["columns"].index("max")
    first = begin + series["offset"] + 8 * series["n"] * column
    return max(array("d", answer[first : first + 8 * series["n"]]), default=float("nan"))

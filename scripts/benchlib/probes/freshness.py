"""From log() to an HTTP answer that contains the row."""

import random
import time
from typing import Any

from trackd_proto.local.hub_client import HubError, run_path

from benchlib import adapters, hub, stats


def probe(tool: str, trials: int, cookie: str = "") -> dict[str, Any]:
    """Milliseconds, p50 and p95. Rows come at random moments, so that they meet every phase of every timer."""
    module = adapters.load(tool)
    started = adapters.start(tool, module)
    chance = random.Random(5)
    path = run_path(started.run.project, started.run.id) + "/scan"
    asked = hub.client(cookie)
    started.log({"x": 0.0})
    hub.wait_for_rows(asked, started.run, "x", 1)
    waits = []
    for step in range(1, trials + 1):
        time.sleep(chance.uniform(0.05, 0.35))
        begin = time.perf_counter_ns()
        started.log({"x": float(step)})
        _wait(asked, path, step)
        waits.append(time.perf_counter_ns() - begin)
    started.finish()
    ordered = sorted(waits)
    return {"p50": stats.quantile(ordered, 0.5) / 1e6, "p95": stats.quantile(ordered, 0.95) / 1e6}


def _wait(asked: Any, path: str, step: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if any(row.get("x") == step for row in asked.rows(path, {"start": step, "end": step + 1})):
                return
        except HubError:
            pass
        time.sleep(0.005)
    raise TimeoutError(f"step {step} is not in the hub after 30 s")

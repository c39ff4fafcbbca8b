"""How fast one process logs, until its rows are durable and until a query finds them."""

import time
from typing import Any

from benchlib import adapters, hub, rows


def probe(tool: str, calls: int, has_hub: bool = True) -> dict[str, Any]:
    """Calls per second until durable in the agent's WAL; points per second until the hub counts them all.

    `has_hub`: with the hub in the agent's process; without, only the agent is measured.
    """
    module = adapters.load(tool)
    cycle = rows.rows(5)
    started = adapters.start(tool, module)
    log = started.log
    log(cycle[0])
    started.run.flush(durable=True, timeout_s=30)  # courier and daemon are up: this measures the flow, not the start
    begin = time.perf_counter()
    for i in range(calls):
        log(cycle[i & 63])
    logged = time.perf_counter()
    is_durable = started.run.flush(durable=True, timeout_s=120)
    durable = time.perf_counter()
    if has_hub:
        hub.wait_for_rows(hub.client(), started.run, list(cycle[0])[-1], calls + 1)
    queryable = time.perf_counter()
    started.finish()
    return {
        "logged": calls / (logged - begin),
        "durable": calls / (durable - begin) if is_durable is not False else 0.0,
        "queryable": 5 * calls / (queryable - begin),
    }

"""Memory of the training process while it logs at a steady rate."""

import os
import time
from pathlib import Path
from typing import Any

from benchlib import adapters, rows


def probe(tool: str, seconds: float, rows_per_s: int) -> dict[str, Any]:
    """Bytes at the end, resident and anonymous, before the run is finished; `peak` is the highest anonymous value."""
    module = adapters.load(tool)
    cycle = rows.rows(20)
    started = adapters.start(tool, module)
    begin, done, peak = time.monotonic(), 0, 0
    while (elapsed := time.monotonic() - begin) < seconds:
        while done < elapsed * rows_per_s:
            started.log(cycle[done & 63])
            done += 1
        peak = max(peak, _memory()["anonymous"])
        time.sleep(0.01)
    result = _memory() | {"peak": peak, "rows": done, "threads": len(list(Path("/proc/self/task").iterdir()))}
    result["child"] = _in_a_child(started, cycle) if tool == "trackd" else 0
    started.finish()
    return result


def _in_a_child(started: adapters.Started, cycle: list[dict[str, float]]) -> int:
    """What a forked child that logs 1,000 rows needs for itself: pages it has written, its spool included."""
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        before = _memory()["private"]
        for i in range(1000):
            started.log(cycle[i & 63])
        os.write(write_end, str(_memory()["private"] - before).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        size = int(answer.read())
    os.waitpid(pid, 0)
    return size


def _memory() -> dict[str, int]:
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) * 1024
    return {"resident": fields["Rss"], "anonymous": fields["Anonymous"], "private": fields["Private_Dirty"]}

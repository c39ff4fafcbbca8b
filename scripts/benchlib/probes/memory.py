"""Memory of the training process while it logs at a steady rate."""

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
    started.finish()
    return result


def _memory() -> dict[str, int]:
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) * 1024
    return {"resident": fields["Rss"], "anonymous": fields["Anonymous"]}

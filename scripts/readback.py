"""Reads runs back over the public API and compares every value with what digits.py says it logged.

    python scripts/readback.py RECORD

Exits 0 if everything is there, bit for bit; else prints what differs and exits 1.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import trackd

WAIT_S = 30.0


def differences(api: Any, logged: dict[str, Any]) -> list[str]:
    """What of one run is not as it was logged."""
    run = api.run(f"digits/{logged['id']}")
    found = []
    last = {key: value for row in logged["rows"] for key, value in row.items()}
    if run.state != "finished":
        found.append(f"state is {run.state!r}, not 'finished'")
    for name, have, want in (
        ("config", dict(run.config), logged["config"]),
        ("summary", dict(run.summary), last | logged["summary"]),
    ):
        found += [f"{name}.{k} is {have.get(k)!r}, logged {v!r}" for k, v in want.items() if have.get(k) != v]
    rows = list(run.scan_history())
    if len(rows) != len(logged["rows"]):
        found.append(f"{len(rows)} rows, logged {len(logged['rows'])}")
    for step, (have, want) in enumerate(zip(rows, logged["rows"], strict=False)):
        values = {key: value for key, value in have.items() if not key.startswith("_")}
        if have["_step"] != step or values != want:
            found.append(f"step {step}: {have}, logged {want}")
    return found + _sampled(run, logged["rows"])


def _sampled(run: Any, rows: list[dict[str, float]]) -> list[str]:
    """The sampled history holds logged values only, the extremes of each series among them."""
    found = []
    for key in sorted({key for row in rows for key in row}):
        want = {step: row[key] for step, row in enumerate(rows) if key in row}
        got = {r["_step"]: r[key] for r in run.history(samples=50, keys=[key], pandas=False) if r.get(key) is not None}
        if any(want.get(step) != value for step, value in got.items()):
            found.append(f"history of {key} holds values that were not logged")
        if not {min(want.values()), max(want.values())} <= set(got.values()):
            found.append(f"history of {key} misses its minimum or maximum")
    return found


def main() -> int:
    logged = json.loads(Path(sys.argv[1]).read_text())
    api = trackd.Api()
    bad = 0
    deadline = time.monotonic() + WAIT_S
    for one in logged:
        # finish() returns when the data is safe; the hub may be some milliseconds behind.
        while (found := _try(api, one)) and time.monotonic() < deadline:
            time.sleep(0.2)
        values = sum(map(len, one["rows"]))
        if found:
            bad += 1
            print(f"  run {one['id']}: {len(found)} differences")
            print("".join(f"    {line}\n" for line in found[:10]), end="")
        else:
            print(f"  run {one['id']}: {len(one['rows'])} rows, {values} values, all as logged")
    return 1 if bad else 0


def _try(api: Any, logged: dict[str, Any]) -> list[str]:
    try:
        return differences(api, logged)
    except (LookupError, ValueError, OSError) as error:
        return [f"{type(error).__name__}: {error}"]


if __name__ == "__main__":
    sys.exit(main())

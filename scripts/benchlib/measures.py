"""What the table consists of. A measure asks probes and returns {row of the table: {tool: value}}."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchlib import runner

Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Options:
    """How much work, and for whom."""

    tools: Sequence[str]
    is_quick: bool = False

    def scaled(self, count: int) -> int:
        return max(1, count // 5) if self.is_quick else count


Measure = Callable[[Options], Table]
MEASURES: dict[str, Measure] = {}


def measure(function: Measure) -> Measure:
    """Registers a measure under its function's name."""
    MEASURES[function.__name__] = function
    return function


def _each(options: Options, ask: Callable[[str], dict[str, float]]) -> Table:
    table: Table = {}
    for tool in options.tools:
        for row, value in ask(tool).items():
            table.setdefault(row, {})[tool] = value
    return table


@measure
def log_5(options: Options) -> Table:
    """log() of 5 floats."""
    return _each(options, lambda tool: _log_cost(tool, "5 scalars", 5, options.scaled(20_000), "float"))


@measure
def log_100(options: Options) -> Table:
    """log() of 100 floats."""
    return _each(options, lambda tool: _log_cost(tool, "100 scalars", 100, options.scaled(5_000), "float"))


@measure
def log_numpy(options: Options) -> Table:
    """log() of numpy scalars."""

    def ask(tool: str) -> dict[str, float]:
        small = _log_cost(tool, "5 numpy scalars", 5, options.scaled(5_000), "numpy")
        large = _log_cost(tool, "100 numpy scalars", 100, options.scaled(2_000), "numpy")
        return {name: value for name, value in (small | large).items() if "p50" in name or "p99.9" in name}

    return _each(options, ask)


@measure
def log_torch(options: Options) -> Table:
    """log() of 0-d tensors; trackd only, where .venv-bench-torch exists (`scripts/bench --torch` makes it)."""
    if "trackd" not in options.tools or not Path(runner.python("trackd", "torch")).exists():
        return {}
    small = _log_cost("trackd", "5 torch scalars", 5, options.scaled(5_000), "torch")
    large = _log_cost("trackd", "100 torch scalars", 100, options.scaled(2_000), "torch")
    return {n: {"trackd": v} for n, v in (small | large).items() if "p50" in n or "p99.9" in n}


def _log_cost(tool: str, what: str, scalars: int, calls: int, kind: str) -> dict[str, float]:
    with runner.place() as there:
        runner.run(there, "life", tool, calls=3)  # a daemon, if the tool has one, is up: every tool starts warm
        cost = runner.run(there, "log_cost", tool, scalars=scalars, calls=calls, kind=kind)
    return {
        f"log(), {what}: p50 (µs)": cost["p50"],
        f"log(), {what}: p99 (µs)": cost["p99"],
        f"log(), {what}: p99.9 (µs)": cost["p999"],
        f"log(), {what}: max (µs)": cost["max"],
        f"log(), {what}: CPU of the process per call (µs)": cost["cpu"],
    }


@measure
def paced(options: Options) -> Table:
    """log() between matrix products of a millisecond."""

    def ask(tool: str) -> dict[str, float]:
        with runner.place() as there:
            runner.run(there, "life", tool, calls=3)
            cost = runner.run(there, "paced", tool, scalars=5, calls=options.scaled(5_000))
        return {f"log() in a paced loop: {n} (µs)": cost[k] for n, k in (("p50", "p50"), ("p99.9", "p999"))}

    return _each(options, ask)


@measure
def life(options: Options) -> Table:
    """import, init() and finish(), medians of fresh processes; the first init() of a home is the cold one."""

    def ask(tool: str) -> dict[str, float]:
        with runner.place() as there:
            seen = [runner.run(there, "life", tool) for _ in range(options.scaled(5) + 2)]
        cold, warm = seen[0], seen[1:]
        return {
            "import (ms)": _median(warm, "import"),
            "init(), nothing running yet (ms)": cold["init"],
            "init(), warm (ms)": _median(warm, "init"),
            "finish() and process exit (ms)": statistics.median(
                (one["exited"] - one["before_finish"]) * 1e3 for one in warm
            ),
        }

    return _each(options, ask)


def _median(results: Sequence[dict[str, Any]], key: str) -> float:
    return float(statistics.median(one[key] for one in results))


@measure
def memory(options: Options) -> Table:
    """Of the training process over a bare interpreter that runs the same loop, 20 scalars 1,000 times a second."""
    seconds = 2 if options.is_quick else 6
    with runner.place() as there:
        bare = runner.run(there, "memory", "bare", seconds=seconds, rows_per_s=1_000)

    def ask(tool: str) -> dict[str, float]:
        with runner.place() as place:
            runner.run(place, "life", tool, calls=3)
            used = runner.run(place, "memory", tool, seconds=seconds, rows_per_s=1_000)
        return {
            "memory of the trainer, anonymous (MB)": (used["anonymous"] - bare["anonymous"]) / 1e6,
            "memory of the trainer, resident (MB)": (used["resident"] - bare["resident"]) / 1e6,
            "threads in the trainer": used["threads"],
        } | ({"memory of a forked child that logs (MB)": used["child"] / 1e6} if used["child"] else {})

    return _each(options, ask)


@measure
def stalls(options: Options) -> Table:
    """A spinning thread in the first second after init(), and the same without any tracker: the machine's own noise."""
    what = "stalls in the second after init()"

    def ask(tool: str) -> dict[str, float]:
        with runner.place() as there:
            seen = [runner.run(there, "stalls", tool) for _ in range(3)]
        return {f"{what}: longest (ms)": _median(seen, "longest"), f"{what}: total (ms)": _median(seen, "total")}

    table = _each(options, ask)
    if "trackd" in options.tools:
        noise = ask("bare")
        table |= {f"{row} without any tracker": {"trackd": value} for row, value in noise.items()}
    return table


@measure
def disk(options: Options) -> Table:
    """Bytes per point of what a peer keeps; trackd's store is in `trackd_disk`."""

    def ask(tool: str) -> dict[str, float]:
        found = {}
        for what, decimals in (("full doubles", None), ("four decimals", 4)):
            with runner.place() as there:
                done = runner.run(there, "disk", tool, calls=options.scaled(20_000), decimals=decimals)
                found[f"disk, {what} (bytes per point)"] = there.size(_DATA[tool]) / done["points"]
        return found

    return _each(Options([tool for tool in options.tools if tool in _DATA], options.is_quick), ask)


_DATA = {"wandb": "*.wandb", "trackio": "bench.db*"}

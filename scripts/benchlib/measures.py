"""What the table consists of. A measure asks probes and returns {row of the table: {tool: value}}."""

import statistics
from collections.abc import Callable, Iterable, Sequence
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
    return _log_costs(options, options.tools, "5 scalars", 5, 10_000, "float")


@measure
def log_100(options: Options) -> Table:
    """log() of 100 floats."""
    return _log_costs(options, options.tools, "100 scalars", 100, 2_500, "float")


@measure
def log_numpy(options: Options) -> Table:
    """log() of numpy scalars."""
    small = _log_costs(options, options.tools, "5 numpy scalars", 5, 2_500, "numpy")
    return _main_rows(small | _log_costs(options, options.tools, "100 numpy scalars", 100, 1_000, "numpy"))


@measure
def log_torch(options: Options) -> Table:
    """log() of 0-d tensors; trackd only, where .venv-bench-torch exists (`scripts/bench --torch` makes it)."""
    if "trackd" not in options.tools or not Path(runner.python("trackd", "torch")).exists():
        return {}
    small = _log_costs(options, ["trackd"], "5 torch scalars", 5, 2_500, "torch")
    return _main_rows(small | _log_costs(options, ["trackd"], "100 torch scalars", 100, 1_000, "torch"))


def _main_rows(table: Table) -> Table:
    return {row: cells for row, cells in table.items() if "p50" in row or "p99.9" in row}


_ROUNDS = 5


def _log_costs(options: Options, tools: Sequence[str], what: str, scalars: int, calls: int, kind: str) -> Table:
    """Every tool in turn, five times over: p50 and CPU of its best round, since other guests of the machine only add
    to them; the tails are medians of the rounds."""
    seen: dict[str, list[runner.Result]] = {tool: [] for tool in tools}
    for _ in range(options.scaled(_ROUNDS)):
        for tool in tools:
            with runner.place() as there:
                runner.run(there, "life", tool, calls=3)  # a daemon, if the tool has one, is up: every tool starts warm
                seen[tool].append(runner.run(there, "log_cost", tool, scalars=scalars, calls=calls, kind=kind))
    rows: dict[str, tuple[str, Callable[[Iterable[float]], float]]] = {
        "p50 (µs)": ("p50", min),
        "p99 (µs)": ("p99", statistics.median),
        "p99.9 (µs)": ("p999", statistics.median),
        "max (µs)": ("max", statistics.median),
        "CPU of the process per call (µs)": ("cpu", min),
    }
    return {
        f"log(), {what}: {row}": {tool: choose([one[key] for one in results]) for tool, results in seen.items()}
        for row, (key, choose) in rows.items()
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

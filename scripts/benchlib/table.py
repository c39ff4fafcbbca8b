"""The table: rows in the order of the measures, one column per tool, and how many times trackd is better."""

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

Table = Mapping[str, Mapping[str, float]]

BARS: dict[str, str] = {
    "log(), 5 scalars: p50 (µs)": "≤ 2",
    "log(), 5 scalars: p99.9 (µs)": "≤ 100",
    "log(), 100 scalars: p50 (µs)": "≤ 9",
    "log(), 5 numpy scalars: p50 (µs)": "≤ 4",
    "log(), 100 numpy scalars: p50 (µs)": "≤ 45",
    "log(), 5 torch scalars: p50 (µs)": "≤ 4",
    "log(), 100 torch scalars: p50 (µs)": "≤ 45",
    "log() in a paced loop: p99.9 (µs)": "≤ 200",
    "stalls in the second after init(): longest (ms)": "≤ 6",
    "stalls in the second after init(): total (ms)": "≤ 15",
    "calls until durable, hub elsewhere (per s)": "≥ 300,000",
    "calls until durable (per s)": "≥ 300,000",
    "points until queryable (per s)": "≥ 400,000",
    "freshness, embedded hub: p95 (ms)": "≤ 300",
    "freshness, separate hub: p95 (ms)": "≤ 300",
    "import (ms)": "≤ 60",
    "init(), nothing running yet (ms)": "≤ 50",
    "init(), warm (ms)": "≤ 50",
    "init(), upstream that never answers (ms)": "≤ 50",
    "init(), 200,000 untracked files in git (ms)": "≤ 50",
    "finish() and process exit (ms)": "≤ 300",
    "finish() and process exit, daemon stopped (ms)": "≤ 1,500",
    "disk, full doubles (bytes per point)": "≤ 10",
    "disk, four decimals (bytes per point)": "≤ 5.5",
    "memory of the trainer, anonymous (MB)": "≤ 10",
    "memory of the trainer, resident (MB)": "≤ 30",
    "memory of a forked child that logs (MB)": "≤ 2",
    "memory of the courier (MB)": "≤ 60",
    "memory of the agent (MB)": "≤ 80",
    "memory of agent and hub, ingesting (MB)": "≤ 350",
    "chart over 1 M points: p95 (ms)": "≤ 50",
}
"""What trackd promises, by row."""


def merge(tables: list[Table]) -> dict[str, dict[str, float]]:
    """One table of several; a later value of the same cell wins."""
    merged: dict[str, dict[str, float]] = {}
    for table in tables:
        for row, cells in table.items():
            merged.setdefault(row, {}).update(cells)
    return merged


def markdown(table: Table, tools: list[str]) -> str:
    """The table as Markdown; a peer's cell also says how many times trackd's value it is."""
    peers = [tool for tool in tools if tool != "trackd"]
    lines = [
        "| | " + " | ".join(["trackd", "bar", *peers]) + " |",
        "|---|" + "---:|" * (len(peers) + 2),
    ]
    for row, cells in table.items():
        own = cells.get("trackd")
        theirs = [_peer(cells.get(tool), own) for tool in peers]
        lines.append("| " + " | ".join([row, _number(own), BARS.get(row, ""), *theirs]) + " |")
    return "\n".join(lines)


def _peer(value: float | None, own: float | None) -> str:
    if value is None or not own or own <= 0 or value <= 0:
        return _number(value)
    return f"{_number(value)} ({value / own:.1f}×)"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}".removesuffix(".0")


def machine() -> str:
    """Processor, memory, system and file system of this machine in a line."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return (
        f"{cores} × {cpu}, {memory / 1e6:.0f} GB, {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def document(table: Table, tools: list[str], versions: Mapping[str, str], command: str) -> str:
    """docs/performance.md."""
    names = ", ".join(f"{tool} {versions[tool]}" for tool in tools)
    return f"""# Performance

Written by `{command}` on {datetime.now(timezone.utc):%Y-%m-%d}. Machine: {machine()}.
Measured in one run, each figure in fresh processes: {names}; wandb in offline mode, everything else at its defaults.
The number of times in brackets is a peer's value divided by trackd's. The bars are what trackd promises.

{markdown(table, tools)}

How each row is measured is in `scripts/benchlib/`: `measures.py` and `trackd_measures.py` say what is asked, `probes/`
what runs in the process. Loops of `log()` are timed call by call with `perf_counter_ns`, whose own cost (about 0.05 µs)
is included; values differ from call to call. A paced loop multiplies matrices for about a millisecond between calls.
Memory is that of the training process less that of a bare interpreter running the same loop.
"""


READMES: dict[str, dict[str, str]] = {
    "README.md": {
        "log(), 5 scalars: p50 (µs)": "`log()` of 5 values, median (µs)",
        "log(), 5 scalars: p99.9 (µs)": "… 99.9th percentile (µs)",
        "log(), 100 scalars: p50 (µs)": "`log()` of 100 values, median (µs)",
        "log() in a paced loop: p50 (µs)": "`log()` of 5 values in a loop that computes, median (µs)",
        "calls until durable (per s)": "calls per second until they are on disk",
        "freshness, embedded hub: p95 (ms)": "from `log()` to the answer of a query, 95th percentile (ms)",
        "import (ms)": "`import` (ms)",
        "init(), warm (ms)": "`init()` (ms)",
        "finish() and process exit (ms)": "`finish()` and end of the process (ms)",
        "memory of the trainer, anonymous (MB)": "memory that the training process owns (MB)",
        "disk, full doubles (bytes per point)": "disk per point, random doubles (bytes)",
    },
    "README.ja.md": {
        "log(), 5 scalars: p50 (µs)": "値5個の `log()`、中央値（µs）",
        "log(), 5 scalars: p99.9 (µs)": "同、99.9 パーセンタイル（µs）",
        "log(), 100 scalars: p50 (µs)": "値100個の `log()`、中央値（µs）",
        "log() in a paced loop: p50 (µs)": "計算しながらのループでの値5個の `log()`、中央値（µs）",
        "calls until durable (per s)": "ディスクに永続化されるまでの毎秒の呼び出し数",
        "freshness, embedded hub: p95 (ms)": "`log()` から問い合わせの答えに現れるまで、95 パーセンタイル（ms）",
        "import (ms)": "`import`（ms）",
        "init(), warm (ms)": "`init()`（ms）",
        "finish() and process exit (ms)": "`finish()` とプロセスの終了（ms）",
        "memory of the trainer, anonymous (MB)": "学習プロセスが占有するメモリ（MB）",
        "disk, full doubles (bytes per point)": "1点あたりのディスク使用量、乱数の倍精度（バイト）",
    },
}
"""The rows that the READMEs show, and what they call them."""


def with_figures(readme: str, text: str, table: Table, tools: list[str]) -> str:
    """The README's text with its table of figures replaced."""
    lines = ["| | " + " | ".join(tools) + " |", "|---|" + "---:|" * len(tools)]
    for row, label in READMES[readme].items():
        cells = table.get(row, {})
        if "trackd" in cells:
            lines.append("| " + " | ".join([label, *(_number(cells.get(tool)) or "–" for tool in tools)]) + " |")
    head, _, rest = text.partition("<!-- figures -->\n")
    tail = rest.partition("<!-- /figures -->\n")[2]
    return head + "<!-- figures -->\n" + "\n".join(lines) + "\n<!-- /figures -->\n" + tail

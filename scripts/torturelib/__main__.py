"""`scripts/torture [minutes]`: every long test in turn, and the table of what came of them.

With four hours or more each has its full size; with fewer, all shrink alike, and the bars stay what they are.
`scripts/torture PART [ARGUMENTS]` runs one of them.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HEAD = ("test", "what", "measured", "bar", "")


@dataclass(frozen=True)
class Part:
    """One script of this folder."""

    script: str
    full: float
    """Its argument at full size."""
    minutes: float
    """What that takes, roughly, on two cores."""
    least: float = 1.0
    steps: bool = False
    """Whether the argument is a step (1: everything) and not a size."""

    def argument(self, share: float) -> str:
        """For this share of the full size."""
        size = math.ceil(1 / share) if self.steps else max(self.least, self.full * share)
        return f"{size:.1f}" if self.least < 1 else f"{size:.0f}"


PARTS = [
    Part("sim", 200_000, 40, 400),
    Part("kills", 500, 12, 14),
    Part("syscalls", 1, 6, steps=True),
    Part("damage", 1, 8, steps=True),
    Part("fuzz", 60, 12, 0.5),
    Part("power", 50_000, 8, 500),
    Part("log", 50_000, 2, 1_000),
    Part("handlers", 60, 5, 5),
    Part("forks", 1_000, 12, 10),
    Part("spawns", 100, 5, 5),
    Part("guest", 20, 3, 2),
    Part("idle", 500, 12, 24),
    Part("nonblocking", 15, 4, 3),
    Part("diskfull", 20, 3, 5),
    Part("backlog", 2, 5, 0.1),
    Part("writers", 8_000, 10, 200),
    Part("clocks", 5, 6),
    Part("hub", 10, 10, 0.5),
    Part("chaos", 10, 10, 0.5),
    Part("soak", 60, 60, 2.0),
]


def main(minutes: float) -> int:
    """Runs the parts; 1 if a bar was missed or a part broke."""
    share = min(1.0, minutes / sum(part.minutes for part in PARTS))
    rows: list[list[str]] = []
    for part in PARTS:
        began = time.monotonic()
        found, code = run(part, share)
        if code and not any(row[-1] == "MISSED" for row in found):
            found.append([part.script, "the whole part", f"broke with exit code {code}", "0", "MISSED"])
        rows += found
        print(f"-- {part.script} {part.argument(share)}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    print()
    print("\n".join(aligned([list(HEAD), *rows])))
    return 1 if any(row[-1] == "MISSED" for row in rows) else 0


def run(part: Part, share: float) -> tuple[list[list[str]], int]:
    """Its rows, shown as they come, and its exit code."""
    command = [sys.executable, "-u", str(HERE / f"{part.script}.py"), part.argument(share)]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            cells = line.strip().split(" | ")
            if len(cells) == len(HEAD) and cells[-1] in ("ok", "MISSED"):
                rows.append(cells)
    return rows, process.returncode


def aligned(rows: list[list[str]]) -> Iterator[str]:
    """As a Markdown table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"


def one(name: str, arguments: list[str]) -> int:
    """Only this part; its exit code."""
    path = HERE / f"{name}.py"
    if not path.is_file():
        names = ", ".join(part.script for part in PARTS)
        print(f"scripts/torture: there is no part {name}; there are {names}", file=sys.stderr)
        return 2
    return subprocess.run([sys.executable, "-u", str(path), *arguments], check=False).returncode


if __name__ == "__main__":
    given = sys.argv[1:]
    if given and not given[0].replace(".", "").isdigit():
        sys.exit(one(given[0], given[1:]))
    sys.exit(main(float(given[0]) if given else 60.0))

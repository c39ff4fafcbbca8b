"""What processes and directories take over time, and whether it grows: /proc read at intervals, robust slopes."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_MOST_POINTS = 240
"""Of one fit: it looks at all pairs."""


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    at_s: float
    rss_bytes: int
    private_bytes: int
    """RssAnon: what it holds itself, without pages of mapped files that the kernel may take back."""
    descriptors: int
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class Life:
    """One incarnation of a process."""

    role: str
    pid: int
    samples: list[Sample]

    def after(self, at_s: float, until_s: float = float("inf")) -> list[Sample]:
        """The samples of a stretch of time."""
        return [one for one in self.samples if at_s <= one.at_s < until_s]


class Watch:
    """Collects samples of processes, told apart by pid and start time."""

    def __init__(self) -> None:
        self._lives: dict[tuple[int, int], Life] = {}

    def look(self, role: str, pid: int, at_s: float) -> Sample | None:
        """Sample one process now; None: it is gone."""
        try:
            fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
            sample = read(pid, at_s, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        except (OSError, KeyError, IndexError):
            return None
        self._lives.setdefault((pid, int(fields[19])), Life(role, pid, [])).samples.append(sample)
        return sample

    def lives(self, role: str = "") -> list[Life]:
        """All incarnations, or those of one role, in the order in which they were first seen."""
        return [life for life in self._lives.values() if role in ("", life.role)]

    def roles(self) -> list[str]:
        """Every role seen."""
        return list(dict.fromkeys(life.role for life in self._lives.values()))

    def cpu_s(self) -> float:
        """Processor time of all, between their first and last samples."""
        return sum(life.samples[-1].cpu_s - life.samples[0].cpu_s for life in self._lives.values())


def read(pid: int, at_s: float = 0.0, cpu_s: float = 0.0) -> Sample:
    """Raises OSError or KeyError when the process is gone."""
    status = {}
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        status[name] = value.split()
    return Sample(
        at_s, int(status["VmRSS"][0]) * 1024, int(status["RssAnon"][0]) * 1024,
        sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()), int(status["Threads"][0]), cpu_s,
    )  # fmt: skip


def slope_per_h(points: Iterable[tuple[float, float]]) -> float:
    """Theil-Sen: the median of the slopes of all pairs, per hour; x in seconds. Outliers and steps back weigh little.
    0.0 with fewer than three points."""
    rows = _thinned(sorted(points))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(rows, 2) if b[0] > a[0]]
    return statistics.median(slopes) * 3600 if len(rows) >= 3 and slopes else 0.0


def floors(points: Iterable[tuple[float, float]], every_s: float) -> list[tuple[float, float]]:
    """The least value of each stretch of time. What leaks lifts them; what work takes and gives back does not, and may
    be many times of it."""
    rows = sorted(points)
    stretches = itertools.groupby(rows, key=lambda row: (row[0] - rows[0][0]) // every_s)
    return [min(stretch, key=lambda row: row[1]) for _, stretch in stretches]


def levels(values: Sequence[int]) -> tuple[int, int, int]:
    """The least of the first and of the last third, and the largest of all: what accumulates lifts the least."""
    third = max(1, len(values) // 3)
    return min(values[:third]), min(values[-third:]), max(values)


def directory_bytes(directory: Path) -> int:
    """What the files below it take on the disk."""
    return sum(entry.stat().st_blocks * 512 for entry in _files(directory))


def by_parent(directory: Path, depth: int = 1) -> dict[str, int]:
    """Disk space below each directory `depth` levels down."""
    sizes: dict[str, int] = defaultdict(int)
    for entry in _files(directory):
        name = "/".join(Path(entry.path).relative_to(directory).parts[:depth])
        with contextlib.suppress(OSError):
            sizes[name] += entry.stat().st_blocks * 512
    return dict(sizes)


def _files(directory: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry


def _thinned(rows: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Medians of neighbours, so that there are few enough."""
    size = -(-len(rows) // _MOST_POINTS) or 1
    groups = [rows[n : n + size] for n in range(0, len(rows), size)]
    return [(statistics.median(x for x, _ in g), statistics.median(y for _, y in g)) for g in groups]

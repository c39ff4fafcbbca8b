"""Which rows stand for a long history. Pure.

`history` answers real rows, whole: those at which a chosen key has a bucket's minimum or maximum, and the last one.
Buckets are aligned over the steps; with K keys each bucket may contribute 2 K rows, so there are samples / 2 K of them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from trackd_daemon.ports import SampledSeries

Row = dict[str, Any]

MAX_STEPS: Final = 20_000
"""Most rows in one answer."""
_CHARS_PER_VALUE: Final = 100
"""Of texts: so many weigh as much as a number."""


def bucket_count(samples: int, keys: int) -> int:
    """How many buckets keep the answer at about `samples` rows."""
    return max(1, samples // (2 * max(keys, 1)))


def keeps_extremes(samples: int, keys: int) -> bool:
    """Whether the minima and maxima of so many keys fit into about `samples` rows (at least one bucket each)."""
    return 2 * keys <= max(samples, 2)


def chosen_steps(series: Sequence[SampledSeries]) -> list[int]:
    """Steps of all minima and maxima and of the last point of each series, ascending."""
    parts: list[Any] = []
    for s in series:
        if len(s.x):
            # A bucket without a finite point has no extremes; its last point stands for it.
            empty = ~np.isfinite(s.min_x) | ~np.isfinite(s.max_x)
            parts += [s.min_x[~empty], s.max_x[~empty], s.x[empty], s.x[-1:]]
    if not parts:
        return []
    return [int(step) for step in np.unique(np.concatenate(parts))]


def thin(values: Sequence[int], most: int) -> list[int]:
    """At most `most` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def merged_points(series: Sequence[SampledSeries], started_s: float) -> list[Row]:
    """Rows of a stream without steps (x is epoch seconds): each key's minima and maxima at their own times."""
    rows: dict[float, Row] = {}
    for s in series:
        for xs, values in ((s.min_x, s.min), (s.max_x, s.max), (s.x[-1:], s.last[-1:])):
            for x, value in zip(xs.tolist(), values.tolist(), strict=True):
                if math.isfinite(x):
                    rows.setdefault(x, {"_timestamp": x, "_runtime": x - started_s})[s.key] = value
    return [rows[x] for x in sorted(rows)]


def in_order_of(rows: list[Row], x_axis: str) -> list[Row]:
    """The rows that have a number at `x_axis`, ascending by it."""
    if x_axis == "_step":
        return rows
    return sorted((row for row in rows if isinstance(row.get(x_axis), (int, float))), key=lambda row: row[x_axis])


def every(rows: Iterable[Row], stride: int, most: int, most_values: int) -> list[Row]:
    """Every `stride`-th row, and the last one; every second of those, and so on, if they are more than `most` rows or
    weigh more than `most_values`: keys that are in different rows, and how long texts are, is seen only here."""
    kept: list[Row] = []
    last, weight = None, 0
    for i, row in enumerate(rows):
        last = row
        if i % stride:
            continue
        kept.append(row)
        weight += _weight(row)
        while len(kept) > 1 and (len(kept) > most or weight > most_values):
            kept, stride = kept[::2], 2 * stride
            weight = sum(map(_weight, kept))
    if last is not None and kept[-1] is not last:
        kept.append(last)
    return kept


def _weight(row: Row) -> int:
    texts = sum(len(value) for value in row.values() if type(value) is str)
    items = sum(len(value) for value in row.values() if type(value) in (list, dict))
    return len(row) + items + texts // _CHARS_PER_VALUE

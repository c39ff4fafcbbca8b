"""What is kept of several points of a series, and how such summaries are united. Pure numpy.

A summary holds what a chart's bucket shows, exactly: count, extremes and where they stand, the last point with its
order key, whether NaN or infinities occur. Only `mean` (a mean and not a sum, which could overflow) depends in its last
digits on how the points were grouped on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trackd_daemon.store import sampling

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEVELS: Final = (1, 2, 3, 4, 5)
"""A bucket of level k covers 64^k steps as stored: before the attempt's base is added, which may still change."""
_BITS: Final = 6


def width_of(level: int) -> int:
    """Steps in a bucket of this level."""
    return 1 << (_BITS * level)


def bucket_of(step: Ints, level: int) -> Ints:
    """Bucket b covers the steps [b * width, (b + 1) * width)."""
    return step >> (_BITS * level)


def level_for(width: float) -> int:
    """The coarsest level with at least four buckets in `width` steps; 0 if there is none."""
    return max((level for level in LEVELS if 4 * width_of(level) <= width), default=0)


@dataclass(frozen=True, slots=True)
class Summaries:
    """Arrays of one length. Where a summary has no finite point, mean, min and max are NaN, min_step and max_step 0."""

    lane: NDArray[np.int32]
    """Lane of the last point."""
    step: Ints
    """Of the last point, as time, seq and last."""
    time: Ints
    seq: Ints
    last: Floats
    count: Ints
    finite: Ints
    """How many of the points are finite."""
    mean: Floats
    min: Floats
    max: Floats
    min_step: Ints
    """Least step at which the minimum stands."""
    max_step: Ints
    flags: NDArray[np.uint8]
    """As in ports.SampledSeries."""

    def take(self, which: NDArray[Any]) -> "Summaries":
        """Those at an index, a mask or a permutation."""
        return Summaries(*(getattr(self, f.name)[which] for f in fields(self)))


def concat(some: Sequence[Summaries]) -> Summaries:
    """One after the other; at least one."""
    return Summaries(*(np.concatenate([getattr(s, f.name) for s in some]) for f in fields(Summaries)))


def starts_of(*columns: NDArray[Any]) -> NDArray[np.intp]:
    """Where a new group begins: any of the columns changes."""
    if not len(columns[0]):
        return np.empty(0, dtype=np.intp)
    changes = np.zeros(len(columns[0]) - 1, dtype=bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    return np.flatnonzero(np.r_[True, changes])


def of_points(
    lane: NDArray[np.int32], step: Ints, time: Ints, seq: Ints, v: Floats, starts: NDArray[np.intp]
) -> Summaries:
    """One summary per group. Points of a group are of one lane, ascending by step and where equal by (time, seq)."""
    sizes = np.diff(np.r_[starts, len(v)])
    ends = starts + sizes - 1
    # Steps as distances: exact as doubles wherever the series stands.
    b = sampling.reduce_groups((step - np.repeat(step[starts], sizes)).astype(np.float64), v, starts)
    finite = b.count
    if b.flags.any():
        finite = np.add.reduceat(np.isfinite(v).astype(np.int64), starts)
    has = finite > 0
    return Summaries(
        lane[ends], step[ends], time[ends], seq[ends], v[ends], b.count, finite, b.mean, b.min, b.max,
        _place(step[starts], b.min_x, has), _place(step[starts], b.max_x, has), b.flags,
    )  # fmt: skip


def _place(base: Ints, distance: Floats, has: NDArray[np.bool_]) -> Ints:
    return np.where(has, base + np.where(has, distance, 0.0).astype(np.int64), 0)


def merge(s: Summaries, starts: NDArray[np.intp]) -> Summaries:
    """One summary per group of summaries, in which the latest is the last one."""
    if not len(starts):
        return s
    sizes = np.diff(np.r_[starts, len(s.count)])
    ends = starts + sizes - 1
    finite = np.add.reduceat(s.finite, starts)
    has, some = finite > 0, s.finite > 0
    low = np.where(has, np.minimum.reduceat(np.where(some, s.min, np.inf), starts), np.nan)
    high = np.where(has, np.maximum.reduceat(np.where(some, s.max, -np.inf), starts), np.nan)
    share = np.where(some, s.mean, 0.0) * (s.finite / np.repeat(np.maximum(finite, 1), sizes))
    return Summaries(
        s.lane[ends], s.step[ends], s.time[ends], s.seq[ends], s.last[ends], np.add.reduceat(s.count, starts), finite,
        np.where(has, np.add.reduceat(share, starts), np.nan), low, high,
        _first_place(s.min == np.repeat(low, sizes), s.min_step, starts, has),
        _first_place(s.max == np.repeat(high, sizes), s.max_step, starts, has),
        np.bitwise_or.reduceat(s.flags, starts),
    )  # fmt: skip


def _first_place(is_extreme: NDArray[np.bool_], step: Ints, starts: NDArray[np.intp], has: NDArray[np.bool_]) -> Ints:
    least = np.minimum.reduceat(np.where(is_extreme, step, np.iinfo(np.int64).max), starts)
    return np.where(has, least, 0)

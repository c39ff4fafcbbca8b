"""Series on a grid of buckets. Pure numpy.

The grid of a chart has buckets of equal width, a power of two, aligned at zero: it does not shift when a live series
grows, so that what was drawn stays. Each bucket keeps its exact extremes and where they stand.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HAS_NAN: Final = 1
HAS_PLUS_INF: Final = 2
HAS_MINUS_INF: Final = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Bucket b covers [b * width, (b + 1) * width)."""

    width: float

    @classmethod
    def over(cls, low: float, high: float, buckets: int) -> "Grid":
        """The finest aligned grid with at most `buckets` (and one, for alignment) over [low, high]."""
        span = high - low
        if not span > 0 or not math.isfinite(span):
            return cls(1.0)
        return cls(2.0 ** math.ceil(math.log2(span / max(buckets, 1))))

    def index(self, x: Floats) -> Floats:
        """Bucket of each x (a whole number, as float64)."""
        return np.floor(x / self.width)


@dataclass(frozen=True, slots=True)
class Buckets:
    """One series, reduced; see ports.SampledSeries for the columns."""

    x: Floats
    last: Floats
    min: Floats
    max: Floats
    mean: Floats
    min_x: Floats
    max_x: Floats
    count: NDArray[np.int64]
    flags: NDArray[np.uint8]


def _extreme_x(x: Floats, v: Floats, starts: NDArray[np.intp], sizes: NDArray[np.intp], extreme: Floats) -> Floats:
    """x of the first point of each bucket whose value is the bucket's extreme (NaN where there is none)."""
    hits = np.flatnonzero(v == np.repeat(extreme, sizes))
    bucket = np.searchsorted(starts, hits, side="right") - 1
    result = np.full(len(starts), np.nan)
    result[bucket[::-1]] = x[hits[::-1]]
    return result


def reduce(x: Floats, v: Floats, grid: Grid) -> Buckets:
    """`x` ascending, and where equal in order of the order key; `v` of the same length."""
    index = grid.index(x)
    starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]]) if len(x) else np.empty(0, dtype=np.intp)
    return reduce_groups(x, v, starts)


def reduce_groups(x: Floats, v: Floats, starts: NDArray[np.intp]) -> Buckets:
    """As `reduce`, for groups of points that begin at these indices, the first at 0; x ascends within each group."""
    sizes = np.diff(np.r_[starts, len(x)])
    if not len(x):
        e = np.empty(0)
        return Buckets(e, e, e, e, e, e, e, sizes.astype(np.int64), e.astype(np.uint8))
    ends = starts + sizes - 1
    finite = np.isfinite(v)
    flags = np.zeros(len(starts), dtype=np.uint8)
    if finite.all():
        low, high = np.minimum.reduceat(v, starts), np.maximum.reduceat(v, starts)
        # The mean of huge values may overflow on the way: divided first, it does not.
        with np.errstate(over="ignore"):
            mean = np.add.reduceat(v, starts) / sizes
        if not np.isfinite(mean).all():
            mean = np.add.reduceat(v / np.repeat(sizes, sizes), starts)
    else:
        for mask, flag in ((np.isnan(v), HAS_NAN), (v == np.inf, HAS_PLUS_INF), (v == -np.inf, HAS_MINUS_INF)):
            flags |= np.where(np.logical_or.reduceat(mask, starts), flag, 0).astype(np.uint8)
        some = np.logical_or.reduceat(finite, starts)
        low = np.where(some, np.minimum.reduceat(np.where(finite, v, np.inf), starts), np.nan)
        high = np.where(some, np.maximum.reduceat(np.where(finite, v, -np.inf), starts), np.nan)
        number = np.maximum(np.add.reduceat(finite.astype(np.int64), starts), 1)
        share = np.where(finite, v, 0.0) / np.repeat(number, sizes)
        mean = np.where(some, np.add.reduceat(share, starts), np.nan)
    return Buckets(
        x[ends], v[ends], low, high, mean,
        _extreme_x(x, v, starts, sizes, low), _extreme_x(x, v, starts, sizes, high),
        sizes.astype(np.int64), flags,
    )  # fmt: skip

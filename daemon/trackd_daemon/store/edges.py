"""Where the buckets of a chart over steps end, so that every rollup bucket lies in one of them whole. Pure.

Rollup buckets are aligned at zero of the stored step; what is shown is base + stored step, and each attempt has its own
base. So within the range that an attempt covers, the edges of the grid are moved up to the next rollup boundary of that
attempt: by less than a quarter of a bucket. Attempts follow each other; where lanes with different bases do overlap,
the one with the most points in all decides, and the others are read point by point.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """What one lane covers, in shown steps (inclusive)."""

    lane_no: int
    low: int
    high: int
    offset: int
    """What is added to its stored steps."""
    points: int


@dataclass(slots=True)
class _Claim:
    low: int
    high: int
    phase: int


@dataclass(frozen=True, slots=True)
class Edges:
    """Bucket i covers [starts[i], starts[i + 1])."""

    starts: Ints
    aligned: frozenset[int]
    """Lanes of which no rollup bucket is cut by an edge."""

    def index(self, step: Ints) -> NDArray[np.intp]:
        """Bucket of each shown step."""
        return np.searchsorted(self.starts, step, side="right")

    def cuts(self, ascending: Ints) -> NDArray[np.intp]:
        """Where in these shown steps a bucket begins, 0 included: what `index` would tell, without a look at each."""
        cuts = np.unique(np.r_[0, np.searchsorted(ascending, self.starts)])
        return cuts[cuts < len(ascending)]


def place(width: int, unit: int, spans: Iterable[Span]) -> Edges:
    """Edges about `width` steps apart for rollup buckets of `unit` steps; 4 * unit <= width, both powers of two."""
    known = sorted(spans, key=lambda s: (-s.points, s.low, s.high, s.offset))
    claims: list[_Claim] = []
    aligned = set()
    for span in known:
        phase = span.offset % unit
        near = [c for c in claims if c.low <= span.high and c.high >= span.low]
        if any(c.phase != phase for c in near):
            continue
        aligned.add(span.lane_no)
        claims = [c for c in claims if c not in near]
        low, high = min([span.low, *(c.low for c in near)]), max([span.high, *(c.high for c in near)])
        claims.append(_Claim(low, high, phase))
    low, high = min(s.low for s in known), max(s.high for s in known)
    nominal = np.arange(low // width, high // width + 1, dtype=np.int64) * width
    starts = nominal.copy()
    for claim in claims:
        # An edge that would be moved beyond the claim's end falls right behind it: no other claim begins before.
        inside = (nominal > claim.low) & (nominal <= claim.high) & (nominal + claim.phase > claim.high)
        starts[inside] = claim.high + 1
    for claim in claims:
        moved = nominal + claim.phase
        inside = (moved > claim.low) & (moved <= claim.high)
        starts[inside] = moved[inside]
    return Edges(starts, frozenset(aligned))

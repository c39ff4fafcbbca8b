"""Buckets keep exact extremes and where they stand, at every zoom."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trackd_daemon.store.sampling import Grid, reduce


@pytest.mark.parametrize("buckets", [1, 7, 50, 500, 5000])
def test_a_spike_of_one_step_is_in_every_zoom(buckets: int) -> None:
    x = np.arange(100_000, dtype=np.float64)
    v = np.sin(x / 1000)
    v[54_321], v[12] = 99.0, -99.0
    result = reduce(x, v, Grid.over(0, x[-1], buckets))
    top, bottom = int(np.argmax(result.max)), int(np.argmin(result.min))
    assert (result.max[top], result.max_x[top]) == (99.0, 54_321)
    assert (result.min[bottom], result.min_x[bottom]) == (-99.0, 12)
    assert len(result.x) <= buckets + 1
    assert result.count.sum() == len(x)


def test_the_grid_stays_when_a_live_series_grows() -> None:
    before, after = Grid.over(0, 600, 500), Grid.over(0, 900, 500)
    assert before == after
    assert Grid.over(5, 5, 500).width == 1.0


def test_what_is_not_finite_is_flagged_and_left_out_of_extremes() -> None:
    x = np.arange(6, dtype=np.float64)
    v = np.array([1.0, math.nan, math.inf, 2.0, math.nan, math.nan])
    result = reduce(x, v, Grid(3.0))
    assert result.flags.tolist() == [1 | 2, 1]
    assert (result.min[0], result.max[0], result.mean[0]) == (1.0, 1.0, 1.0)
    alone = reduce(x[4:], v[4:], Grid(3.0))
    assert np.isnan([alone.min[0], alone.max[0], alone.mean[0], alone.min_x[0], alone.max_x[0]]).all()
    assert reduce(x, np.full(6, -math.inf), Grid(9.0)).flags.tolist() == [4]


def test_nothing() -> None:
    assert len(reduce(np.empty(0), np.empty(0), Grid(1.0)).x) == 0


def test_a_mean_of_huge_values_does_not_overflow() -> None:
    assert reduce(np.zeros(2), np.array([1.7e308, 1.7e308]), Grid(1.0)).mean[0] == 1.7e308


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), finite), min_size=1, max_size=60), st.integers(1, 20))
def test_every_bucket_says_what_its_points_say(pairs: list[tuple[float, float]], buckets: int) -> None:
    pairs.sort(key=lambda p: p[0])
    x, v = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    grid = Grid.over(float(x[0]), float(x[-1]), buckets)
    result = reduce(x, v, grid)
    bucket = grid.index(x)
    for at, name in enumerate(np.unique(bucket)):
        xs, vs = x[bucket == name], v[bucket == name]
        assert (result.x[at], result.last[at], result.count[at]) == (xs[-1], vs[-1], len(vs))
        assert (result.min[at], result.max[at]) == (vs.min(), vs.max())
        assert result.min_x[at] == xs[np.argmin(vs)] and result.max_x[at] == xs[np.argmax(vs)]
        assert result.mean[at] == pytest.approx(vs.mean(), rel=1e-9, abs=1e-9)

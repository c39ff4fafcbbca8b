"""No edge cuts a rollup bucket of an aligned lane, wherever attempts begin."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from trackd_daemon.store.edges import Span, place

spans = st.lists(
    st.tuples(st.integers(-5000, 5000), st.integers(0, 4000), st.integers(0, 3000), st.integers(1, 100)),
    min_size=1,
    max_size=8,
)


@given(spans, st.sampled_from([(256, 64), (512, 64), (4096, 64), (2048, 512)]))
def test_aligned_lanes_are_never_cut(made: list[tuple[int, int, int, int]], sizes: tuple[int, int]) -> None:
    width, unit = sizes
    known = [Span(i, low, low + length, offset, points) for i, (low, length, offset, points) in enumerate(made)]
    edges = place(width, unit, known)
    assert (np.diff(edges.starts) > 0).all()
    assert edges.aligned
    late = edges.starts % width
    assert (late < unit).all(), "an edge moves up, and by less than a rollup bucket"
    low, high = min(s.low for s in known), max(s.high for s in known)
    index = edges.index(np.arange(low, high + 1))
    for span in known:
        if span.lane_no in edges.aligned:
            shown = np.arange(span.low, span.high + 1)
            bucket = (shown - span.offset) // unit
            for first in np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]]):
                inside = shown[bucket == bucket[first]]
                assert len(set(index[inside - low].tolist())) == 1


def test_attempts_that_follow_each_other_are_all_aligned() -> None:
    known = [Span(0, 0, 999, 0, 1000), Span(1, 1000, 5037, 1000, 4000), Span(2, 5038, 9000, 5038, 3000)]
    edges = place(512, 64, known)
    assert edges.aligned == {0, 1, 2}
    assert edges.starts.tolist()[:4] == [0, 512, 1024 + 1000 % 64, 1536 + 1000 % 64]


def test_of_lanes_that_overlap_the_larger_is_aligned() -> None:
    assert place(512, 64, [Span(0, 0, 9000, 0, 10), Span(1, 100, 5000, 7, 4000)]).aligned == {1}

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from trackd_daemon.http import sampling
from trackd_daemon.http.export import column_type, value_kinds
from trackd_daemon.ports import SampledSeries


def series(**columns: list[float]) -> SampledSeries:
    n = len(columns["x"])
    names = ("x", "last", "min", "max", "mean", "min_x", "max_x")
    filled = {name: np.array(columns.get(name, columns["x"]), float) for name in names}
    counts = {"count": np.ones(n, np.int64), "flags": np.zeros(n, np.uint8)}
    return SampledSeries(run=("p", "r"), key="k", total=n, **counts, **filled)  # type: ignore[arg-type]


def test_extremes_and_the_last_point_are_chosen() -> None:
    one = series(x=[9, 19], min_x=[1, 12], max_x=[5, 12])
    other = series(x=[8, 30], min_x=[float("nan"), 30], max_x=[float("nan"), 25])
    assert sampling.chosen_steps([one, other]) == [1, 5, 8, 12, 19, 25, 30]
    assert sampling.chosen_steps([series(x=[])]) == []


@given(st.lists(st.integers(), unique=True).map(sorted), st.integers(2, 50))
def test_thinning_keeps_the_ends(values: list[int], most: int) -> None:
    kept = sampling.thin(values, most)
    assert len(kept) <= most and set(kept) <= set(values) and kept == sorted(kept)
    assert not values or (kept[0], kept[-1]) == (values[0], values[-1])


@given(st.integers(0, 200), st.integers(1, 50))
def test_every_keeps_the_last(count: int, stride: int) -> None:
    rows = [{"i": i} for i in range(count)]
    kept = sampling.every(rows, stride, 1000, 1000)
    assert kept[:-1] == rows[::stride][: len(kept) - 1] and kept[-1:] == rows[-1:]
    few = sampling.every(rows, stride, 10, 1000)
    light = sampling.every(rows, stride, 1000, 10)
    assert max(len(few), len(light)) <= 11 and few[-1:] == light[-1:] == rows[-1:] and few[:1] == rows[:1]


def test_ordering_by_an_axis_drops_rows_without_it() -> None:
    rows = [{"_step": 0, "t": 5}, {"_step": 1}, {"_step": 2, "t": 1}, {"_step": 3, "t": "x"}]
    assert sampling.in_order_of(rows, "t") == [rows[2], rows[0]]
    assert sampling.in_order_of(rows, "_step") == rows


def test_column_types_hold_every_value_exactly() -> None:
    cases: list[tuple[list[object], str]] = [
        ([True], "BOOLEAN"), ([1, -1, 2**60], "BIGINT"), ([1, 2**63], "UBIGINT"), ([1, 0.5], "DOUBLE"),
        (["a"], "VARCHAR"),
        ([2**60, 0.5], "JSON"), ([-1, 2**63], "JSON"), ([2**64], "JSON"), ([1, "a"], "JSON"), ([[1]], "JSON"),
        ([True, 1], "JSON"), ([-(2**63)], "BIGINT"), ([], "BOOLEAN"),
    ]  # fmt: skip
    for values, expected in cases:
        kinds = {kind for value in values for kind in value_kinds(value)}
        assert column_type(kinds) == expected, values

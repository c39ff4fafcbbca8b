"""What a logged value becomes."""

import datetime
import decimal
import enum
import fractions
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from trackd import values
from trackd_proto import limits, records


class Tensor:
    """Stands for torch's and jax's: `item()` for one element, an error of its own for more."""

    def __init__(self, *elements: Any) -> None:
        self.elements = elements
        self.shape = () if len(elements) == 1 else (len(elements),)

    def item(self) -> Any:
        if len(self.elements) != 1:
            raise RuntimeError("a Tensor with several elements cannot be converted to Scalar")
        return self.elements[0]

    def tolist(self) -> list[Any]:
        return list(self.elements)


class Colour(enum.Enum):
    RED = 3


@dataclass
class Point:
    x: int
    y: Any


def stored(value: Any) -> Any:
    """As it comes back from a record."""
    row = values.to_row({"v": value})
    try:
        blob = msgspec.msgpack.encode(row)
    except Exception:
        blob = msgspec.msgpack.encode(values.to_safe({"v": value}))
    return msgspec.msgpack.decode(blob)["v"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5), (True, True), (None, None), ("ü", "ü"), (2**63, 2**63), (-(2**63), -(2**63)),
        (2**70, {records.TAG: ["int", str(2**70)]}), (-(2**65), {records.TAG: ["int", str(-(2**65))]}),
        (np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.int8(-3), -3), (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True), (np.str_("s"), "s"), (np.longdouble(0.5), 0.5), (np.array(3), 3),
        (np.array([4.5]), 4.5),
        (np.array([1, 2, 3]), [1, 2, 3]), (np.array([[1.0], [2.0]]), [[1.0], [2.0]]),
        (Tensor(0.25), 0.25), (Tensor(1, 2), [1, 2]), ([Tensor(1.5), np.float32(2)], [1.5, 2.0]),
        ({"a": {"b": np.float64(1)}}, {"a": {"b": 1.0}}), ((1, 2), [1, 2]), (range(3), [0, 1, 2]),
        (Colour.RED, 3), (Point(1, np.int64(2)), {"x": 1, "y": 2}), (b"bytes", "bytes"), (b"\xff", "\\xff"),
        (datetime.date(2026, 1, 2), "2026-01-02"), ({3: 1}, {"3": 1}), ("lone \udc80", "lone \\udc80"),
    ],
)  # fmt: skip
def test_values(value: Any, expected: Any) -> None:
    found = stored(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0])
def test_odd_floats_are_kept(value: float) -> None:
    for form in (value, np.float32(value), np.float64(value), Tensor(value)):
        assert np.float64(stored(form)).tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize(
    "value", [object(), 1 + 2j, np.complex128(1j), Tensor(1j), np.zeros(5000), fractions.Fraction(1, 3)]
)
def test_what_cannot_be_stored_is_kept_as_text_with_one_warning(value: Any) -> None:
    values._warned.clear()
    with pytest.warns(values.UnstorableWarning, match="stored as its repr") as seen:
        first, second = stored(value), stored(value)
    assert list(first) == [records.TAG]
    assert first == second
    assert len(seen) == 1


def test_one_bad_value_does_not_cost_the_others() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise ValueError("no")

    with pytest.warns(values.UnstorableWarning):
        row = values.to_row({"loss": 0.5, "bad": Hostile(), "many": Tensor(1, 2), "decimal": decimal.Decimal("1.5")})
    assert row["loss"] == 0.5
    assert row["many"] == [1, 2]
    assert records.TAG in row["bad"]


def test_nesting_has_a_bottom() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.warns(values.UnstorableWarning):
        values._warned.clear()
        msgspec.msgpack.encode(values.to_safe(deep))


@pytest.mark.filterwarnings("ignore::trackd.values.UnstorableWarning")
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,)])
def test_what_is_nested_too_deep_is_cut_there_and_in_no_time(wrap: Callable[[Any], Any]) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = wrap(deep)
    row = values.to_row({"deep": deep, "loss": 0.5})
    assert row["loss"] == 0.5
    inner, depth = row["deep"], 1
    while records.TAG not in inner:
        (inner,) = inner.values() if isinstance(inner, dict) else inner
        depth += 1
    assert depth == limits.MAX_DEPTH
    assert inner[records.TAG][0] == "repr"
    assert values.to_safe(row) == row, "what was cut stays what it is"


@pytest.mark.filterwarnings("ignore::trackd.values.UnstorableWarning")
def test_what_holds_itself_has_an_end() -> None:
    ring: dict[str, Any] = {"x": 1}
    ring["self"] = ring
    assert values.to_row(ring)["self"]["self"]["x"] == 1
    msgspec.msgpack.encode(values.to_safe(ring))

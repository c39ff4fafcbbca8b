import json
import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from trackd_daemon.http import encoding
from trackd_proto import batch
from trackd_proto.local.hub_client import restore
from trackd_proto.records import tagged_int, tagged_repr

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(LEAVES, lambda v: st.lists(v) | st.dictionaries(st.text().filter(lambda k: k != "__trackd__"), v))


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.copysign(1, a) == math.copysign(1, b) and (a == b or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(VALUES)
def test_msgpack_keeps_everything(value: object) -> None:
    assert same(restore(msgspec.msgpack.decode(encoding.to_msgpack(value))), value)


@given(st.dictionaries(st.text(), LEAVES))
def test_json_is_strict_json_without_loss(value: dict[str, object]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(encoding.to_json(value), parse_constant=refuse)
    for key, leaf in value.items():
        if isinstance(leaf, float) and not math.isfinite(leaf):
            assert found[key] == ("NaN" if math.isnan(leaf) else "Infinity" if leaf > 0 else "-Infinity")
        elif type(leaf) is int and abs(leaf) > 2**53:
            assert found[key] == f"int:{leaf}"
        else:
            assert same(found[key], leaf)


def test_tagged_values_of_the_store_mean_what_they_say() -> None:
    value = {"a": tagged_int(2**80), "b": [tagged_repr("<object>")]}
    assert json.loads(encoding.to_json(value)) == {"a": f"int:{2**80}", "b": ["<object>"]}
    assert restore(msgspec.msgpack.decode(encoding.to_msgpack(value))) == {"a": 2**80, "b": ["<object>"]}


def test_rows_stand_behind_their_length() -> None:
    rows = [{"a": 1}, {"a": 2**70}]
    data = encoding.to_msgpack_rows(rows)
    mark, size = batch.PREFIX.unpack_from(data)
    assert mark == batch.PREFIX_MARK and size == len(data) - batch.PREFIX.size
    assert restore(msgspec.msgpack.decode(data[batch.PREFIX.size :])) == rows

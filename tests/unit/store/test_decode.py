"""Batches become columns; values stay what they were; a bad record falls alone."""

import math
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trackd_daemon.store import decode
from trackd_daemon.store.decode import FLOATS, INTS, OTHERS, Block
from trackd_proto import batch as framing
from trackd_proto import records

encode = msgspec.msgpack.encode


def row(x: int, body: dict[Any, Any], time_us: int = 5, kind: int = records.ROW) -> bytes:
    return encode([kind, time_us, x, body])


def decoded(payloads: list[bytes], first_seq: int = 1) -> decode.Decoded:
    return decode.decode(framing.join(payloads), first_seq, len(payloads), crc32=0)


def points(blocks: list[Block]) -> dict[tuple[int, str], Any]:
    """(seq, key) -> value as Python has it."""
    result = {}
    for block in blocks:
        for index, key in enumerate(block.keys):
            for seq, value in zip(block.seq.tolist(), block.values[index].tolist(), strict=True):
                assert (seq, key) not in result, "a point came out twice"
                result[seq, key] = decode.decode_value(value) if block.column == OTHERS else value
    return result


def test_rows_of_equal_keys_make_one_block() -> None:
    blocks = decoded([row(i, {"a": float(i), "b": i / 2}) for i in range(5)]).blocks
    assert len(blocks) == 1
    assert (blocks[0].keys, blocks[0].column, blocks[0].values.shape) == (("a", "b"), FLOATS, (2, 5))
    assert blocks[0].step.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (1.5, FLOATS), (math.nan, FLOATS), (math.inf, FLOATS), (-0.0, FLOATS), (3, INTS), (2**53 + 1, INTS),
        (-(2**63), INTS), (2**63, OTHERS), (True, OTHERS), (None, OTHERS), ("s", OTHERS), ([1, "x"], OTHERS),
        ({}, OTHERS), (records.tagged_int(2**70), OTHERS), (records.tagged_repr("<x>"), OTHERS),
    ],
)  # fmt: skip
def test_each_value_has_its_column(value: Any, column: str) -> None:
    blocks = decoded([row(0, {"k": value})]).blocks
    assert [b.column for b in blocks] == [column]
    expected = {records.TAG: ["int"]} if value == {} else value
    found = points(blocks)[1, "k"]
    if value == records.tagged_int(2**70):
        assert found == 2**70
    elif value == records.tagged_repr("<x>"):
        assert found == "<x>"
    elif isinstance(value, float):
        assert np.float64(found).tobytes() == np.float64(value).tobytes()
    else:
        assert found == (value if value != {} else {}) and type(found) is type(value), expected


def test_a_column_of_mixed_values_is_split_by_type() -> None:
    values = [1.5, 2, "x", None, 3.5, 2**64 - 1]
    blocks = decoded([row(i, {"k": v, "plain": float(i)}) for i, v in enumerate(values)]).blocks
    found = points(blocks)
    assert [found[i + 1, "k"] for i in range(len(values))] == values
    assert [type(found[i + 1, "k"]) for i in range(4)] == [float, int, str, type(None)]
    assert [found[i + 1, "plain"] for i in range(len(values))] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_nested_maps_become_dotted_paths() -> None:
    found = points(decoded([row(0, {"a": {"b": 1, "c": {"d": 2.5}}, 7: 1.0, "e": {}})]).blocks)
    assert found == {(1, "a.b"): 1, (1, "a.c.d"): 2.5, (1, "7"): 1.0, (1, "e"): {}}


BAD = [
    b"\xc1", b"", encode([1, 2, 3]), encode({"a": 1}), encode([1, "t", 0, {}]), encode([1, 2, 1.5, {"a": 1.0}]),
    encode([1, 2, 3, [4]]), encode([1, 2**64 - 1, 3, {"a": 1.0}]), encode([1, 2, -(2**62), {"a": 1.0}]),
    encode([3, 2, 0, 7]), encode([1, True, 0, {"a": 1.0}]),
    encode([1, 2, 0, {"a": 1.0}]) + b"\x00",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_is_set_aside_alone(bad: bytes) -> None:
    result = decoded([row(0, {"a": 1.0}), bad, row(1, {"a": 2.0})], first_seq=10)
    assert points(result.blocks) == {(10, "a"): 1.0, (12, "a"): 2.0}
    assert [(r.seq, r.data, r.is_loss) for r in result.raws] == [(11, bad, True)]
    assert sum(r.count for r in result.rows) == 2


def test_an_unknown_kind_is_kept_and_is_no_loss() -> None:
    result = decoded([encode([99, 1, 0, {"new": 1}])])
    assert [(r.seq, r.is_loss, r.reason) for r in result.raws] == [(1, False, "unknown kind 99")]


def test_what_a_newer_version_added_is_kept_and_what_is_known_is_taken() -> None:
    newer = encode([records.ROW, 5, 7, {"a": 2.0}, {"unit": "m"}])
    result = decoded([row(0, {"a": 1.0}), newer, encode([99, "all else"]), row(1, {"a": 3.0})])
    assert points(result.blocks) == {(1, "a"): 1.0, (2, "a"): 2.0, (4, "a"): 3.0}
    assert [(r.seq, r.data, r.is_loss) for r in result.raws] == [
        (2, newer, False), (3, encode([99, "all else"]), False),
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [100, 500, 900])
@pytest.mark.parametrize("kind", [records.ROW, records.CONFIG, records.SUMMARY])
@pytest.mark.parametrize("step", [b"\x91", b"\x81\xa1a"])
def test_what_is_nested_too_deep_to_be_read_again_is_set_aside_alone(depth: int, kind: int, step: bytes) -> None:
    deep = b"\x94" + encode(kind) + encode(5) + encode(0) + b"\x81\xa1k" + step * depth + b"\x01"
    result = decoded([row(0, {"a": 1.0}), deep, row(1, {"a": 2.0})])
    assert points(result.blocks) == {(1, "a"): 1.0, (3, "a"): 2.0}
    assert [(r.seq, r.is_loss) for r in result.raws] == [(2, True)]


def test_a_batch_that_cannot_be_split_is_kept_whole() -> None:
    data = framing.join([row(0, {"a": 1.0})])[:-1]
    result = decode.decode(data, 4, 3, crc32=0)
    assert [(r.seq, r.count, r.data) for r in result.raws] == [(4, 3, data)]
    assert not result.blocks


def test_the_rolling_hash_covers_the_records_without_prefixes() -> None:
    payloads = [row(i, {"a": float(i)}) for i in range(3)]
    assert decoded(payloads).crc32 == zlib.crc32(b"".join(payloads))
    with_bad = [payloads[0], b"\xc1\xc1", payloads[1]]
    assert decoded(with_bad).crc32 == zlib.crc32(b"".join(with_bad))
    assert (
        decode.decode(framing.join(payloads[1:]), 2, 2, crc32=zlib.crc32(payloads[0])).crc32 == decoded(payloads).crc32
    )


def test_a_part_of_a_batch() -> None:
    payloads = [row(i, {"a": float(i)}) for i in range(4)]
    assert decode.part_of(framing.join(payloads), 1, 3) == framing.join(payloads[1:3])


scalar = st.one_of(st.floats(allow_nan=False), st.integers(-(2**63), 2**64 - 1), st.text(), st.booleans(), st.none())


@given(st.lists(st.dictionaries(st.text(max_size=3).filter(lambda k: "." not in k), scalar, max_size=4), max_size=8))
def test_every_value_comes_out_once_as_it_went_in(bodies: list[dict[str, Any]]) -> None:
    result = decoded([row(i, body) for i, body in enumerate(bodies)])
    expected = {(seq, k): v for seq, body in enumerate(bodies, 1) for k, v in body.items()}
    found = points(result.blocks)
    assert {k: (type(v), v) for k, v in found.items()} == {k: (type(v), v) for k, v in expected.items()}
    assert not result.raws

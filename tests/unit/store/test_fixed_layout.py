"""Rows read as a matrix are the rows that were written, and what is no such run is left alone."""

import math
import random
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from trackd_daemon.store import decode, fixed_layout
from trackd_proto import batch, records

encode = msgspec.msgpack.encode
T0 = 1_764_000_000_000_000


def rows(steps: list[int], keys: list[str], seed: int = 0, kind: int = records.ROW) -> list[bytes]:
    rng = random.Random(seed)
    odd = [math.nan, math.inf, -math.inf, -0.0, 5e-324]
    return [
        encode([kind, T0 + i, step, {k: rng.choice(odd) if rng.random() < 0.1 else rng.gauss(0, 1) for k in keys}])
        for i, step in enumerate(steps)
    ]


def general(data: bytes, count: int, monkeypatch: pytest.MonkeyPatch) -> decode.Decoded:
    with monkeypatch.context() as patch:
        patch.setattr(fixed_layout, "read_run", lambda *_: None)
        return decode.decode(data, 1, count, crc32=7)


def points(found: decode.Decoded) -> list[tuple[Any, ...]]:
    """Every point with all its coordinates, values as their bytes (NaN equals itself, -0.0 is not 0.0)."""
    result = []
    for block in found.blocks:
        for index, key in enumerate(block.keys):
            for seq, step, time_us, value in zip(
                block.seq, block.step, block.time_us, block.values[index], strict=True
            ):
                stored = np.float64(value).tobytes() if block.column == decode.FLOATS else value
                result.append((block.kind, key, block.column, int(seq), int(step), int(time_us), stored))
    return sorted(result, key=repr)


def same(data: bytes, count: int, monkeypatch: pytest.MonkeyPatch) -> decode.Decoded:
    fast, slow = decode.decode(data, 1, count, crc32=7), general(data, count, monkeypatch)
    assert points(fast) == points(slow)
    assert fast.crc32 == slow.crc32
    assert (fast.min_time, fast.max_time) == (slow.min_time, slow.max_time)
    assert sum(r.count for r in fast.rows) == sum(r.count for r in slow.rows)
    assert [(f.seq, f.kind, f.body) for f in fast.facts] == [(f.seq, f.kind, f.body) for f in slow.facts]
    assert [(r.seq, r.data, r.count) for r in fast.raws] == [(r.seq, r.data, r.count) for r in slow.raws]
    return fast


@pytest.mark.parametrize("start", [0, 100, 200, 65_000, 2**32 - 50, 2**63 - 200, -500, -40_000, -(2**40)])
@pytest.mark.parametrize("width", [1, 5, 20, 70])
def test_runs_across_every_size_of_step(start: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"layer{i}/grad_ñ" if i % 3 else f"k{i}" + "x" * i * 5 for i in range(width)]
    data = batch.join(rows(list(range(start, start + 150)), keys))
    same(data, 150, monkeypatch)


def test_a_run_is_found_and_its_columns_are_exact() -> None:
    written = rows(list(range(1000, 1100)), ["loss", "acc"], kind=records.ROW_ORDINAL)
    data = batch.join(written)
    run = fixed_layout.read_run(data, 0, 7)
    assert run is not None
    assert (run.kind, run.keys, run.size) == (records.ROW_ORDINAL, ("loss", "acc"), len(data))
    assert run.x.tolist() == list(range(1000, 1100))
    assert run.time_us.tolist() == [T0 + i for i in range(100)]
    assert run.crc32 == zlib.crc32(b"".join(written), 7)
    for index, key in enumerate(run.keys):
        expected = np.array([msgspec.msgpack.decode(r)[3][key] for r in written])
        assert run.values[index].tobytes() == expected.tobytes()


def test_random_mixtures_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    for seed in range(60):
        written: list[bytes] = []
        while len(written) < 200:
            kind = rng.randrange(6)
            step = rng.choice([0, 100, 60_000, 10**9])
            if kind < 3:
                written += rows(
                    list(range(step, step + rng.randrange(1, 80))), ["a", "b", "c"][: rng.randrange(1, 4)], seed
                )
            elif kind == 3:
                written.append(encode([records.CONFIG, T0, 0, {"lr": 0.1}]))
            elif kind == 4:
                written += [encode([records.ROW, T0, step, {"a": i, "b": "text", "c": None}]) for i in range(20)]
            else:
                written += [encode([records.ROW, T0, step, {"a": 0.5, "n": {"x": 1.5}}])] * 20
        same(batch.join(written), len(written), monkeypatch)


@pytest.mark.parametrize(
    "record",
    [
        encode([records.ROW, T0, 2**63, {"a": 0.5}]),
        encode([records.ROW, 2**63, 5, {"a": 0.5}]),
        encode([records.ROW, T0, 5, {"a": 0.5}])[:-3],
        encode([records.ROW, T0, 5, {1: 0.5}]),
        encode([records.ROW, T0, 5, {}]),
        b"\x94\x01\xcf" + b"\0" * 30,
        b"",
    ],
)
def test_what_is_no_row_of_floats_is_treated_as_ever(record: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    good = rows(list(range(40)), ["a"])
    same(batch.join([*good, *[record] * 30, *good]), 110, monkeypatch)


def test_damage_in_the_middle_of_a_run_touches_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch.join(rows(list(range(200, 300)), ["a", "b"]))
    rng = random.Random(9)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        same(bytes(data), 100, monkeypatch)

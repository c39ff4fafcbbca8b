"""Records that are too large for one: what the parts add up to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from trackd import rows
from trackd_daemon.store import facts, tables
from trackd_proto import limits, records

decode = msgspec.msgpack.decode
WIDE = "\u6642"
"""Three bytes of UTF-8."""


def parts(kind: int, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The bodies; each fits into a record."""
    payload = rows.encode((kind, 7, 3, body))
    assert len(payload) > limits.MAX_RECORD_BYTES
    found = rows.split(payload)
    assert max(map(len, found)) <= limits.MAX_RECORD_BYTES
    decoded = [decode(part) for part in found]
    assert all(part[:3] == [kind, 7, 3] for part in decoded)
    return [part[3] for part in decoded]


def merged(maps: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in maps:
        assert not whole.keys() & part.keys()
        whole |= part
    return whole


def deep_merged(into: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            deep_merged(into[key], value)
        else:
            assert key not in into
            into[key] = value
    return into


@pytest.mark.parametrize("kind", [records.ROW, records.ROW_ORDINAL, records.CONFIG, records.META])
def test_keys_are_measured_in_bytes(kind: int) -> None:
    body = {WIDE * 2000 + str(i): i / 7 for i in range(300)}
    assert merged(parts(kind, body)) == body


@pytest.mark.parametrize("kind", [records.ROW, records.ROW_ORDINAL])
def test_a_map_inside_a_row_is_as_many_values_as_it_holds(kind: int) -> None:
    layers = {f"layer{i}": {"mean": i / 7, "spread": {"p10": i, "p90": 2 * i}} for i in range(30_000)}
    body = {"loss": 0.5, "gradients": layers, "empty": {}, "after": "x"}
    whole: dict[str, Any] = {}
    for part in parts(kind, body):
        deep_merged(whole, part)
    assert whole == body


@pytest.mark.parametrize("kind", [records.ROW, records.CONFIG, records.SUMMARY])
def test_a_single_value_that_is_too_large_is_cut(kind: int) -> None:
    values: dict[str, Any] = {"a": 1, "text": WIDE * limits.MAX_RECORD_BYTES, "z": [1.5] * 200_000, "zz": 2}
    body = {"set": values} if kind == records.SUMMARY else values
    found = parts(kind, body)
    whole = merged([part["set"] for part in found] if kind == records.SUMMARY else found)
    assert (whole["a"], whole["zz"]) == (1, 2)
    for cut in (whole["text"], whole["z"]):
        assert cut[records.TAG][0] == "repr" and cut[records.TAG][1].endswith("cut: larger than a record)")


def test_a_map_of_a_config_is_one_value() -> None:
    """Top-level keys replace: half a map would take the place of the other half."""
    (whole,) = parts(records.CONFIG, {"a": {str(i): i for i in range(300_000)}, "b": {"c": 1}})
    assert records.TAG in whole["a"] and whole["b"] == {"c": 1}


LONG = WIDE * 1300
SUMMARIES = {
    "set": {"set": {f"layer{i}.{LONG}": i / 7 for i in range(300)}},
    "del": {"set": {}, "del": [f"layer{i}.{LONG}" for i in range(300)]},
    # Maps that took the place of values, and values that took the place of maps.
    "both": {
        "set": {f"a{i}.b.{LONG}": i for i in range(150)} | {f"b{i}": i for i in range(150)},
        "del": [f"a{i}" for i in range(150)] + [f"b{i}.c.{LONG}" for i in range(150)],
    },
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_store_makes_the_same_of_a_summary_in_parts(name: str) -> None:
    body: dict[str, Any] = SUMMARIES[name]
    found = parts(records.SUMMARY, body)
    assert len(found) > 1 and all(part.get("set") or part.get("del") for part in found)
    assert merged([part["set"] for part in found]) == body["set"]
    assert sorted(path for part in found for path in part.get("del", [])) == sorted(body.get("del", []))
    assert stored(found) == stored([body])


def stored(bodies: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Facts and leaves of a run to which these were written, one after the other."""
    engine = sa.create_engine("sqlite://")
    tables.metadata.create_all(engine, tables=[tables.facts, tables.leaves])
    with engine.connect() as con:
        facts.set_summary(con, 1, {"a5": 0.5, "b6.c.d": 0.5, "kept": 1}, [], b"\0\1")
        for number, body in enumerate(bodies):
            facts.set_summary(con, 1, body.get("set") or {}, body.get("del") or [], bytes([1, number]))
        facts.summary_leaves(con, 1)
        answers = []
        for table in (tables.facts, tables.leaves):
            columns = [c for c in table.columns if c.name != "ord"]
            answers.append(con.execute(sa.select(*columns).order_by(table.c.section, table.c.path)).all())
    engine.dispose()
    return list(answers[0]), list(answers[1])

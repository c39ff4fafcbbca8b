"""`run.summary`: last values, and what the user sets."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from trackd.summary import Summary


class Sink:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.logged: dict[str, Any] = {}
        self.summary = Summary(self.sent.append, lambda: dict(self.logged))

    @property
    def recorded(self) -> dict[str, Any]:
        """Explicit values as the hub keeps them."""
        state: dict[str, Any] = {}
        for body in self.sent:
            for path in body.get("del", []):
                state.pop(path, None)
            state.update(body["set"])
        return state


@pytest.fixture
def sink() -> Sink:
    return Sink()


def test_the_last_logged_value_is_the_default(sink: Sink) -> None:
    sink.logged = {"loss": 1, "a.b": 2}
    assert sink.summary.as_dict() == {"loss": 1, "a": {"b": 2}}
    sink.logged["loss"] = 0.5
    assert sink.summary["loss"] == 0.5 == sink.summary.loss == sink.summary.get("loss")
    assert not sink.sent, "reading writes nothing"


def test_what_the_user_sets_wins_and_stays(sink: Sink) -> None:
    sink.summary["best"] = 0.9
    sink.summary.loss = 7
    sink.logged = {"loss": 1, "acc": 3}
    assert sink.summary.as_dict() == {"best": 0.9, "loss": 7, "acc": 3}
    assert sink.recorded == {"best": 0.9, "loss": 7}


def test_setting_a_nested_key_keeps_its_siblings(sink: Sink) -> None:
    sink.summary["d"] = {"k": 1}
    sink.summary["d"]["k2"] = 2
    sink.summary.d.deep = {"x": 3}
    sink.summary["d"]["deep"]["y"] = 4
    assert sink.summary.as_dict() == {"d": {"k": 1, "k2": 2, "deep": {"x": 3, "y": 4}}}
    assert sink.recorded == {"d.k": 1, "d.k2": 2, "d.deep.x": 3, "d.deep.y": 4}


def test_a_nested_write_beside_logged_values_sets_only_itself(sink: Sink) -> None:
    sink.logged = {"val.loss": 1, "val.acc": 2}
    sink.summary["val"]["acc"] = 9
    sink.logged["val.loss"] = 0.5
    assert sink.summary.as_dict() == {"val": {"loss": 0.5, "acc": 9}}
    assert sink.recorded == {"val.acc": 9}


def test_a_value_replaces_a_map_and_a_map_a_value(sink: Sink) -> None:
    sink.summary["a"] = {"b": 1, "c": 2}
    sink.summary["a"] = 5
    assert (sink.summary.as_dict(), sink.recorded) == ({"a": 5}, {"a": 5})
    sink.summary["a"] = {"d": 1}
    assert (sink.summary.as_dict(), sink.recorded) == ({"a": {"d": 1}}, {"a.d": 1})


def test_update_is_one_record(sink: Sink) -> None:
    sink.summary.update({"a": 1}, b={"c": 2})
    assert sink.sent == [{"set": {"a": 1, "b.c": 2}}]


def test_deleting(sink: Sink) -> None:
    sink.logged = {"loss": 1, "d.x": 1, "d.y": 2}
    sink.summary["best"] = 3
    del sink.summary["best"]
    del sink.summary["loss"]
    del sink.summary["d"]["x"]
    assert sink.summary.as_dict() == {"d": {"y": 2}}
    assert sink.recorded == {}
    assert {path for body in sink.sent for path in body.get("del", [])} >= {"best", "loss", "d.x"}
    sink.logged["loss"] = 0.1
    assert "loss" not in sink.summary, "deleted stays deleted until it is set again"
    sink.summary["loss"] = 4
    assert sink.summary["loss"] == 4
    with pytest.raises(KeyError):
        del sink.summary["never"]
    with pytest.raises(AttributeError):
        _ = sink.summary.never


def test_a_section_is_an_ordinary_dict(sink: Sink) -> None:
    sink.logged = {"a.b": 1}
    assert isinstance(sink.summary["a"], dict)
    assert json.dumps(sink.summary.as_dict()) == '{"a": {"b": 1}}'


def test_what_is_nested_too_deep_or_holds_itself_ends_there(sink: Sink) -> None:
    itself: dict[str, Any] = {}
    itself["me"] = itself
    deep: Any = 1
    for _ in range(5000):
        deep = {"k": deep}
    sink.summary["itself"] = itself
    sink.summary.update({"deep": deep, "lists": [[deep]], "loss": 0.5})
    assert sink.summary["loss"] == 0.5
    assert sink.summary.as_dict().keys() == {"itself", "deep", "lists", "loss"}
    assert max(path.count(".") for path in sink.recorded) < 40


def test_the_time_of_an_update_grows_with_its_keys_and_not_with_their_square(sink: Sink) -> None:
    """Eight thousand new keys took 17 s on the training thread."""
    many = {f"layer{i // 10}.weight{i % 10}": float(i) for i in range(20_000)}
    sink.logged.update({f"layer{i // 10}.norm{i % 10}": float(i) for i in range(20_000)})
    began = time.monotonic()
    sink.summary.update(many)
    sink.summary.update(many)
    assert sink.summary["layer7"]["weight3"] == 73.0
    assert sink.summary["layer7"]["norm3"] == 73.0
    del sink.summary["layer7"]
    assert "layer7" not in sink.summary
    assert time.monotonic() - began < 5
    assert len(sink.recorded) == 20_000 - 10

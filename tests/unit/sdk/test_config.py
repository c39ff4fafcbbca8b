"""`run.config`: what is recorded, and what is refused."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trackd.config import Config, defaults_file, from_any, read_yaml
from trackd.errors import ConfigError
from trackd_proto import limits


class Sink:
    """A config with a list of what it sent."""

    def __init__(self, **kwargs: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.config = Config(self.sent.append, **kwargs)

    @property
    def recorded(self) -> dict[str, Any]:
        """As the hub sees it: the last value of every top-level key."""
        return {key: value for body in self.sent for key, value in body.items()}


@pytest.fixture
def sink() -> Sink:
    return Sink()


def test_items_and_attributes_are_the_same(sink: Sink) -> None:
    config = sink.config
    config.lr = 0.1
    config["depth"] = 3
    assert (config["lr"], config.depth, config.get("lr"), config.get("no", 5)) == (0.1, 3, 0.1, 5)
    assert dict(config) == {"lr": 0.1, "depth": 3} == config.as_dict() == sink.recorded
    assert "lr" in config and "no" not in config and len(config) == 2 and list(config.keys()) == ["lr", "depth"]
    with pytest.raises(AttributeError, match="'no'"):
        _ = config.no
    with pytest.raises(KeyError):
        config["no"]


def test_a_value_changes_only_when_that_is_allowed(sink: Sink) -> None:
    config = sink.config
    config.update({"lr": 0.1, "n": {"a": 1}, "layers": (1, 2)})
    config.update({"lr": 0.1, "n": {"a": 1}, "layers": [1, 2]})  # equal values are no change
    for attempt in (lambda: config.update({"new": 1, "lr": 0.2}), lambda: setattr(config, "lr", 0.2)):
        with pytest.raises(ConfigError, match=r"config.lr is 0.1 and would become 0.2.*allow_val_change"):
            attempt()
    assert config.as_dict() == {"lr": 0.1, "n": {"a": 1}, "layers": [1, 2]} and "new" not in sink.recorded
    config.update({"lr": 0.2}, allow_val_change=True)
    assert sink.recorded["lr"] == 0.2


def test_allow_val_change_of_the_run_is_respected() -> None:
    sink = Sink(can_change=True)
    sink.config.lr = 1
    sink.config.lr = 2
    assert sink.recorded == {"lr": 2}
    with pytest.raises(ConfigError):
        sink.config.update({"lr": 3}, allow_val_change=False)


def test_setdefaults_takes_only_what_is_missing(sink: Sink) -> None:
    sink.config.lr = 1
    sink.config.setdefaults({"lr": 5, "depth": 2})
    assert sink.recorded == {"lr": 1, "depth": 2}


def test_writes_into_nested_values_are_recorded(sink: Sink) -> None:
    config = sink.config
    config.model = {"lr": 0.1, "opt": {"name": "sgd"}}
    config["model"]["opt"]["name"] = "adam"
    config.model.opt.beta = 0.9
    config.model.update(depth=3)
    config.model.pop("lr")
    del config.model["depth"]
    config.model.setdefault("opt", {})["eps"] = 1
    assert sink.recorded == {"model": {"opt": {"name": "adam", "beta": 0.9, "eps": 1}}}


def test_nested_values_are_dicts_for_everybody_else(sink: Sink) -> None:
    sink.config.model = {"a": {"b": 1}}
    model = sink.config.model
    assert isinstance(model, dict) and json.loads(json.dumps(model)) == {"a": {"b": 1}}
    for copied in (copy.deepcopy(model), copy.copy(model), model.copy(), pickle.loads(pickle.dumps(model))):
        assert type(copied) is dict and type(copied["a"]) is dict
        copied["a"]["b"] = 2
    assert sink.config.as_dict() == {"model": {"a": {"b": 1}}}
    assert dict(**model) == {"a": {"b": 1}}


def test_a_list_that_was_appended_to_is_recorded_at_the_end(sink: Sink) -> None:
    sink.config.layers = [1]
    sink.config["layers"].append(2)
    sink.config.persist()
    assert sink.recorded == {"layers": [1, 2]}
    count = len(sink.sent)
    sink.config.persist()
    assert len(sink.sent) == count, "nothing changed, nothing is written"


def test_the_dict_that_was_passed_stays_the_callers(sink: Sink) -> None:
    mine: dict[str, Any] = {"model": {"lr": 1}}
    sink.config.update(mine)
    mine["model"]["lr"] = 2
    sink.config.model["lr"] = 3
    assert mine == {"model": {"lr": 2}} and sink.recorded == {"model": {"lr": 3}}


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    inner: Any = None


class Flags:
    def flag_values_dict(self) -> dict[str, Any]:
        return {"lr": 0.1}


class WithItems:
    def items(self) -> list[tuple[str, float]]:
        return [("lr", 0.1)]


class Model:
    def model_dump(self) -> dict[str, float]:
        return {"lr": 0.1}


@pytest.mark.parametrize(
    "source",
    [{"lr": 0.1}, argparse.Namespace(lr=0.1), Flags(), Options(), WithItems(), Model(), Config(lambda _: None)],
    ids=lambda source: type(source).__name__,
)
def test_what_users_pass(source: Any) -> None:
    if isinstance(source, Config):
        source.lr = 0.1
    assert from_any(source)["lr"] == 0.1


@pytest.mark.parametrize("source", [3, [("lr", 1)], object(), SimpleNamespace(lr=1)])
def test_what_is_no_config(source: object) -> None:
    with pytest.raises(TypeError, match=r"config: expected a dict, argparse.Namespace, absl flags, a dataclass"):
        from_any(source)


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lr: 1e-3\nn: {a: 1}\nname: x\nbig: 6.02e23\nversion: 1.2.3\n")
    assert (
        from_any(file)
        == from_any(str(file))
        == {"lr": 0.001, "n": {"a": 1}, "name": "x", "big": 6.02e23, "version": "1.2.3"}
    )
    file.write_text("wandb_version: 1\nlr:\n  desc: rate\n  value: 0.5\nplain: 2\n")
    assert read_yaml(file) == {"lr": 0.5, "plain": 2}
    file.write_text("")
    assert read_yaml(file) == {}


@pytest.mark.parametrize(("text", "reason"), [("- 1", "mapping"), ("a: [", "cannot read"), (None, "No such file")])
def test_yaml_mistakes_name_the_file(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"config: .*c.yaml.*{reason}|config: .*{reason}.*c.yaml"):
        from_any(str(file))


def test_config_defaults_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert defaults_file() == {}
    Path("config-defaults.yaml").write_text("wandb_version: 1\nlr: {value: 3}\n")
    assert defaults_file() == {"lr": 3}


def test_what_a_record_holds(sink: Sink) -> None:
    big = np.arange(2000)
    sink.config.update(
        {
            "nan": math.nan,
            "path": Path("/data"),
            "function": len,
            "type": Options,
            "options": Options(inner={"a": np.float32(0.5)}),
            "array": big,
            "scalar": np.int64(3),
            "dtype": np.dtype("float32"),
            "complex": 1 + 2j,
            "huge": 2**70,
            7: "seven",
        }
    )
    recorded = sink.recorded
    assert math.isnan(recorded.pop("nan"))
    assert recorded == {
        "path": "/data",
        "function": "builtins.len",
        "type": f"{__name__}.Options",
        "options": {"lr": 0.1, "inner": {"a": 0.5}},
        "array": big.tolist(),
        "scalar": 3,
        "dtype": "float32",
        "complex": "(1+2j)",
        "huge": {"__trackd__": ["int", str(2**70)]},
        "7": "seven",
    }


def test_unequal_arrays_are_a_change_and_equal_ones_are_not(sink: Sink) -> None:
    sink.config.a = np.zeros(3)
    sink.config.a = np.zeros(3)
    with pytest.raises(ConfigError):
        sink.config.a = np.ones(3)
    sink.config.flag = True
    with pytest.raises(ConfigError):
        sink.config.flag = 1.5


def nested(around: Any) -> Any:
    value: Any = 1
    for _ in range(5000):
        value = around(value)
    return value


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["me"] = [value]
    return value


@pytest.mark.filterwarnings("ignore::trackd.values.UnstorableWarning")
@pytest.mark.parametrize("deep", [nested(lambda v: {"k": v}), nested(lambda v: [v]), nested(lambda v: (v,)), itself()])
def test_what_is_nested_too_deep_or_holds_itself_is_cut(sink: Sink, deep: Any) -> None:
    sink.config.update({"deep": deep, "lr": 0.1})
    sink.config["other"] = deep
    sink.config.persist()
    assert sink.recorded["lr"] == 0.1
    recorded = json.dumps(sink.recorded["deep"])
    assert sink.recorded["other"] == sink.recorded["deep"]
    before, cut, _ = recorded.partition("__trackd__")
    assert cut and before.count("[") + before.count("{") == limits.MAX_DEPTH
    assert sink.config.as_dict().keys() == {"deep", "lr", "other"}

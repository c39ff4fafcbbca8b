"""Which layer wins, and what a bad value does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trackd_proto import settings as table
from trackd_proto.settings import Loaded, SettingError, load


class World:
    """Files and variables of a made-up machine."""

    def __init__(self, root: Path) -> None:
        self.system = root / "etc/config.toml"
        self.user = root / "home/.config/trackd/config.toml"
        self.project = root / "code/trackd.toml"
        self.directory = root / "code/sub"
        self.environ = {"XDG_CONFIG_HOME": str(root / "home/.config")}
        self.directory.mkdir(parents=True)
        (root / "code/.git").mkdir()

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self, overrides: Any = None, arguments: Any = None) -> Loaded:
        return load(overrides, arguments, environ=self.environ, directory=self.directory, system_file=self.system)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_layer_beats_the_one_below(world: World) -> None:
    steps: list[tuple[str, str]] = []

    def note(overrides: Any = None, arguments: Any = None) -> None:
        loaded = world.load(overrides, arguments)
        assert not loaded.problems
        steps.append((loaded.settings.project, loaded.origins["project"]))

    note()
    world.write(world.system, 'project = "system"')
    note()
    world.write(world.user, 'project = "user"')
    note()
    world.write(world.project, 'project = "project"')
    note()
    world.environ["TRACKD_PROJECT"] = "variable"
    note()
    note({"project": "override"})
    note({"project": "override"}, {"project": "argument"})
    assert steps == [
        ("", "default"),
        ("system", str(world.system)),
        ("user", str(world.user)),
        ("project", str(world.project)),
        ("variable", "TRACKD_PROJECT"),
        ("override", "init(settings=)"),
        ("argument", "argument"),
    ]


def test_none_and_empty_variables_count_as_not_given(world: World) -> None:
    world.write(world.user, 'mode = "offline"')
    world.environ["TRACKD_MODE"] = ""
    loaded = world.load({"mode": None}, {"mode": None})
    assert (loaded.settings.mode, loaded.origins["mode"]) == ("offline", str(world.user))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("strict", "YES", True),
        ("quiet", "0", False),
        ("tags", "a, b,,c ", ("a", "b", "c")),
        ("spool_quota_bytes", "2 GiB", 2 * 1024**3),
        ("spool_quota_bytes", "1.5kb", 1500),
        ("spool_quota_bytes", "4096", 4096),
        ("finish_timeout", "2.5", 2.5),
        ("http_port", "8080", 8080),
        ("mode", "dryrun", "offline"),
        ("mode", "Disabled", "disabled"),
        ("upstream", "hub.example:8443", "hub.example:8443"),
        ("upstream", "embedded", ""),
    ],
)
def test_variables_are_read_by_type(world: World, name: str, text: str, value: object) -> None:
    world.environ[table.variable(name)] = text
    loaded = world.load()
    assert not loaded.problems
    assert getattr(loaded.settings, name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strict", "maybe"),
        ("mode", "on line"),
        ("http_port", "99999"),
        ("http_port", "http"),
        ("finish_timeout", "-1"),
        ("spool_quota_bytes", "much"),
        ("spool_quota_bytes", "1 GiBs"),
        ("upstream", "hub"),
        ("upstream", "http://hub:1"),
        ("resume", "perhaps"),
    ],
)
def test_a_bad_value_is_named_and_the_lower_layer_stands(world: World, name: str, text: str) -> None:
    world.environ[table.variable(name)] = text
    loaded = world.load()
    (problem,) = loaded.problems
    assert problem.place == table.variable(name)
    for part in (table.variable(name), repr(text), "expected", "unset"):
        assert part in problem.message
    assert getattr(loaded.settings, name) == getattr(table.Settings(), name)
    assert loaded.origins[name] == "default"


def test_a_bad_value_in_a_file_names_file_and_setting(world: World) -> None:
    world.write(world.project, 'http_port = "x"\nproject = "kept"')
    loaded = world.load()
    (problem,) = loaded.problems
    assert str(world.project) in problem.message and "http_port" in problem.message
    assert loaded.settings.project == "kept"


def test_a_corrupt_file_is_named_and_left_out(world: World) -> None:
    world.write(world.user, "project = ")
    world.write(world.project, 'project = "p"')
    loaded = world.load()
    assert [p.place for p in loaded.problems] == [str(world.user)]
    assert "corrected or removed" in loaded.problems[0].message
    assert loaded.settings.project == "p"


def test_unknown_variables_are_named_with_the_nearest_that_exists(world: World) -> None:
    world.environ |= {"TRACKD_UPSTREM": "h:1", "TRACKD__COURIER": "x", "TRACKDX": "y"}
    loaded = world.load()
    assert [p.place for p in loaded.problems] == ["TRACKD_UPSTREM"]
    assert "TRACKD_UPSTREAM" in loaded.problems[0].message


def test_unknown_names_in_init_settings_are_problems_and_wrong_values_raise(world: World) -> None:
    assert "_service_wait" in world.load({"_service_wait": 30}).problems[0].message
    with pytest.raises(SettingError, match=r"init\(settings=\) mode.*online, offline or disabled.*'of'"):
        world.load({"mode": "of"})
    with pytest.raises(SettingError, match=r"reinit.*expected default"):
        world.load(None, {"reinit": "sometimes"})
    with pytest.raises(SettingError, match="strict"):
        world.load({"strict": 3})


def test_the_project_file_is_not_looked_for_outside_the_repository(world: World, tmp_path: Path) -> None:
    world.write(tmp_path / "trackd.toml", 'project = "outside"')
    assert world.load().settings.project == ""
    world.write(world.directory / "trackd.toml", 'project = "nearest"')
    world.write(world.project, 'project = "root"')
    assert world.load().settings.project == "nearest"


def test_relative_paths_in_a_file_are_relative_to_it(world: World) -> None:
    world.write(world.project, 'dir = "out"\nhome = "/abs"')
    loaded = world.load()
    assert loaded.settings.dir == str(world.project.parent / "out")
    assert loaded.settings.home == "/abs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_project_file_of_somebody_else_is_not_read(world: World) -> None:
    world.write(world.project, 'upstream = "evil:1"')
    os.chown(world.project, 65534, 65534)
    loaded = world.load()
    assert loaded.settings.upstream == ""
    assert "another user" in loaded.problems[0].message


def test_home_path(world: World) -> None:
    assert table.Settings(home="/x").home_path({}) == Path("/x")
    assert table.Settings().home_path({"XDG_STATE_HOME": "/state"}) == Path("/state/trackd")
    assert table.Settings().home_path({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/trackd"


@pytest.mark.parametrize("name", table.NAMES)
def test_every_field_is_described_and_its_default_is_a_value_of_it(name: str) -> None:
    meta = table.meta(name)
    assert meta.description and meta.description.rstrip().endswith(".")
    assert (meta.extra or {})["expected"]
    default = getattr(table.Settings(), name)
    assert table.parse(name, default, "x") == default
    assert msgspec.json.encode(default)

"""`trackd.init()`: arguments, defaults, directories, modes, and what a second call does."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trackd
from support import written
from trackd import notebook
from trackd import places as run_places

WANDB = [
    "entity", "project", "dir", "id", "name", "notes", "tags", "config", "config_exclude_keys", "config_include_keys",
    "allow_val_change", "group", "job_type", "mode", "force", "reinit", "resume", "resume_from", "fork_from",
    "save_code", "tensorboard", "sync_tensorboard", "monitor_gym", "settings", "anonymous",
]  # fmt: skip
"""wandb 0.31's parameters in their order."""


def test_the_signature_is_wandbs() -> None:
    parameters = inspect.signature(trackd.init).parameters.values()
    assert [p.name for p in parameters] == WANDB
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty for p in parameters)


def test_defaults(home: Path) -> None:
    run = trackd.init()
    assert re.fullmatch("[0-9a-z]{8}", run.id)
    assert re.fullmatch("[a-z]+-[a-z]+", run.name)
    assert trackd.run is run and run.project and run.step == 0
    assert (run.notes, run.tags, run.group, run.entity, run.job_type) == ("", (), "", "", "")
    run.finish()
    main = written.only(home).main
    assert (main["run_id"], main["name"], main["project"]) == (run.id, run.name, run.project)
    assert main["writer"]["pid"] == os.getpid() and re.fullmatch("[0-9a-f]{32}", main["attempt"])


def test_everything_given(home: Path) -> None:
    run = trackd.init(
        "me", "digits", None, "id1", "first", "a note", ["a", "b", "a"],
        {"lr": 1, "secret": 2}, ["secret"], None, None, "g", "train",
    )  # fmt: skip
    assert (run.entity, run.project, run.id, run.name, run.notes, run.tags) == (
        "me", "digits", "id1", "first", "a note", ("a", "b")
    )  # fmt: skip
    assert (run.group, run.job_type, run.path) == ("g", "train", "digits/id1")
    run.name = "second"
    run.tags += ("c",)
    run.notes = None  # type: ignore[assignment]
    run.finish()
    found = written.only(home)
    expected = {"entity": "me", "project": "digits", "run_id": "id1", "name": "first", "notes": "a note", "group": "g"}
    assert expected.items() <= found.main.items()
    assert found.main["tags"] == ["a", "b"] and found.config == {"lr": 1}
    assert found.updates == [{"name": "second"}, {"tags": ["a", "b", "c"]}, {"notes": ""}]


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"project": 3}, TypeError, ["project", "a text", "int"]),
        ({"project": "a/b"}, ValueError, ["project", "a/b", "/"]),
        ({"project": "x" * 129}, ValueError, ["project", "128"]),
        ({"id": "a:b"}, ValueError, ["id", "a:b"]),
        ({"id": ""}, ValueError, ["id", "empty"]),
        ({"name": ["x"]}, TypeError, ["name", "a text", "list"]),
        ({"tags": 3}, TypeError, ["tags", "list of texts"]),
        ({"tags": ["a", 3]}, TypeError, ["tags", "list of texts"]),
        ({"tags": [""]}, ValueError, ["tags", "1 to 64"]),
        ({"tags": ["x" * 65]}, ValueError, ["tags", "1 to 64"]),
        ({"config": 3}, TypeError, ["config", "dict", "int"]),
        ({"config": "/nonexistent.yaml"}, ValueError, ["config", "/nonexistent.yaml"]),
        ({"mode": "of"}, ValueError, ["mode", "online, offline or disabled", "'of'"]),
        ({"mode": True}, TypeError, ["mode", "'offline'", "bool"]),
        ({"reinit": "x"}, ValueError, ["reinit", "finish_previous"]),
        ({"resume": "x"}, ValueError, ["resume", "allow"]),
        ({"dir": 3}, TypeError, ["dir", "a path"]),
        ({"settings": 3}, TypeError, ["settings", "dict"]),
        ({"settings": {"mode": 3}}, ValueError, ["settings", "mode"]),
        ({"settings": {"run_id": "a/b"}}, ValueError, ["run_id", "a/b"]),
        (
            {"config_include_keys": ["a"], "config_exclude_keys": ["b"]},
            ValueError,
            ["config_include_keys", "config_exclude_keys"],
        ),
    ],
)
def test_mistakes_name_the_argument(
    home: Path, arguments: dict[str, Any], error: type[Exception], parts: list[str]
) -> None:
    with pytest.raises(error) as caught:
        trackd.init(**arguments)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert trackd.run is None and not home.exists()


@pytest.mark.parametrize("name", ["save_code", "tensorboard", "sync_tensorboard", "monitor_gym"])
def test_what_is_not_built_warns_once(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        trackd.init(**{name: True}, anonymous="allow", force=True).finish()
    assert capsys.readouterr().err.count(f"init({name}=...) has no effect") == 1


@pytest.mark.parametrize(
    ("resume", "recorded"), [("allow", "allow"), ("auto", "auto"), (True, "auto"), (False, None), (None, None)]
)
def test_resume_without_a_check(home: Path, resume: Any, recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trackd.init(id="r", resume=resume).finish()
    assert "warning" not in capsys.readouterr().err
    assert written.only(home).main["resume"] == recorded


# -- settings ---------------------------------------------------------------------------------------------------------


def test_arguments_beat_settings_beat_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_PROJECT", "variable")
    monkeypatch.setenv("TRACKD_TAGS", "a,b")
    monkeypatch.setenv("TRACKD_NAME", "n")
    for arguments, project in (
        ({}, "variable"),
        ({"settings": {"project": "setting"}}, "setting"),
        ({"settings": trackd.Settings(project="setting", run_name="n")}, "setting"),
        ({"settings": {"project": "setting", "run_group": "g"}, "project": "argument"}, "argument"),
    ):
        run = trackd.init(**arguments)  # type: ignore[arg-type]
        assert (run.project, run.tags, run.name) == (project, ("a", "b"), "n")
        run.finish()
    assert run.group == "g", "the names of wandb's settings are understood"


def test_a_bad_variable_warns_and_training_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKD_MODE", "of")
    monkeypatch.setenv("TRACKD_RUN_ID", "a/b")
    monkeypatch.setenv("TRACKD_PROJEKT", "x")
    run = trackd.init()
    err = capsys.readouterr().err
    for part in ("TRACKD_MODE", "TRACKD_RUN_ID", "TRACKD_PROJEKT", "Did you mean TRACKD_PROJECT?"):
        assert part in err
    assert not run.offline and re.fullmatch("[0-9a-z]{8}", run.id)


# -- directories ------------------------------------------------------------------------------------------------------


def test_run_dir_is_under_the_home_when_that_is_set(home: Path) -> None:
    run = trackd.init(id="x1")
    assert re.fullmatch(rf"{home}/trackd-runs/run-\d{{8}}_\d{{6}}-x1/files", run.dir)
    assert Path(run.dir).is_dir() and run.run_dir == str(Path(run.dir).parent)


def test_run_dir_without_a_home_is_in_the_working_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKD_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = trackd.init()
    assert Path(run.dir).parents[1] == tmp_path / "work/trackd-runs"
    assert (tmp_path / "state/trackd").is_dir()


def test_dir_and_its_variable_beat_the_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_DIR", str(tmp_path / "variable"))
    run = trackd.init()
    assert Path(run.dir).parents[2] == tmp_path / "variable"
    run.finish()
    run = trackd.init(dir=tmp_path / "argument")
    assert Path(run.dir).parents[2] == tmp_path / "argument"


def test_two_runs_of_one_second_have_two_directories(home: Path) -> None:
    first = trackd.init(id="same")
    second = trackd.init(id="same", reinit="create_new")
    assert first.dir != second.dir and Path(second.dir).is_dir()


def test_an_unwritable_directory_is_replaced_aloud(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    run = trackd.init(dir=str(tmp_path / "file"))
    assert Path(run.dir).is_dir() and run.dir.startswith(str(tmp_path / "tmp"))
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err and run.run_dir in err and "TRACKD_DIR" in err


def test_an_unusable_home_is_replaced_aloud(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home.touch()
    run = trackd.init()
    run.log({"a": 1})
    run.finish()
    assert "TRACKD_HOME" in capsys.readouterr().err
    (spare,) = tmp_path.glob("trackd-home-*")
    assert written.only(spare).rows == [(0, {"a": 1})]


def test_a_deleted_working_directory_is_no_error(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.delenv("TRACKD_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert Path(trackd.init().dir).is_dir()


# -- modes ------------------------------------------------------------------------------------------------------------


def test_a_disabled_run_writes_nothing_and_takes_everything(home: Path, tmp_path: Path) -> None:
    with trackd.init(mode="disabled", config={"lr": 1}) as run:
        assert trackd.run is run and run.disabled
        run.log({"a": 1}, step=5, commit=False)
        trackd.log({"a": 1})
        run.config.update({"b": {"c": 2}})
        run.summary["best"] = 3
        run.name = "other"
        assert (run.url, run.project_url, run.step, run.flush(durable=True)) == (None, None, 0, True)
        assert (run.config.lr, run.config.b["c"], run.summary["best"], run.name) == (1, 2, 3, "other")
    run.log({"a": 1})
    assert not home.exists() and not list((tmp_path / "work").iterdir())
    assert Path(run.dir).is_dir() and run.dir == run.dir
    Path(run.dir).rmdir()


def test_an_offline_run_says_so_in_its_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trackd.init(mode="offline")
    run.log({"a": 1})
    assert run.offline and run.url is None
    run.finish()
    target = written.only(home).target
    assert (target.mode, target.run_dir) == ("offline", run.run_dir)
    assert f"trackd flush {run.run_dir}" in capsys.readouterr().err


# -- a second init() --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["script", "notebook"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(notebook, "is_notebook", lambda: request.param == "notebook")
    return str(request.param)


def test_default_reinit(home: Path, place: str) -> None:
    first = trackd.init()
    second = trackd.init()
    if place == "script":
        assert second is first and not first.is_finished
    else:
        assert second is not first and first.is_finished and trackd.run is second


@pytest.mark.parametrize(
    ("reinit", "is_same", "ends_first"),
    [
        ("return_previous", True, False),
        (False, True, False),
        ("finish_previous", False, True),
        (True, False, True),
        ("create_new", False, False),
    ],
)
def test_reinit(home: Path, place: str, reinit: Any, is_same: bool, ends_first: bool) -> None:
    first = trackd.init()
    second = trackd.init(reinit=reinit)
    assert (second is first, first.is_finished) == (is_same, ends_first)
    assert trackd.run is (first if reinit == "create_new" else second)
    if not second.is_finished and second is not first:
        second.log({"b": 2})
        second.finish()
        assert written.runs(home)[second.id].rows == [(0, {"b": 2})]


def test_reinit_as_a_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trackd.init()
    assert trackd.init(settings={"reinit": "create_new"}) is not first
    monkeypatch.setenv("TRACKD_REINIT", "finish_previous")
    trackd.init()
    assert first.is_finished


def test_an_open_with_is_never_finished_by_an_inner_init(home: Path, place: str) -> None:
    with trackd.init(project="outer") as outer:
        with trackd.init() as inner:
            assert inner is outer
            inner.log({"table": 1}, commit=False)
        with trackd.init(project="other", name="x") as inner:
            assert inner is outer
        assert trackd.init() is outer and not outer.is_finished and trackd.run is outer
        outer.log({"loss": 1})
        assert outer.project == "outer"
    assert outer.is_finished and trackd.run is None
    found = written.only(home)
    assert found.rows == [(0, {"table": 1}), (0, {"loss": 1})]
    assert found.exits == [{"state": "finished", "exit_code": 0, "cause": None}]


def test_inside_a_with_an_id_or_reinit_makes_a_run_and_the_outer_one_goes_on(home: Path, place: str) -> None:
    with trackd.init(id="outer") as outer:
        with trackd.init(id="inner") as inner:
            assert inner is not outer and trackd.run is inner
        assert trackd.run is outer and not outer.is_finished
        with trackd.init(reinit="create_new") as inner:
            assert inner is not outer and trackd.run is outer
        assert trackd.init(id="outer") is outer
        with trackd.init(reinit="finish_previous"):
            assert outer.is_finished


def test_what_an_open_run_cannot_take_is_said_and_new_config_is_taken(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trackd.init(project="p", config={"lr": 1})
    trackd.init(project="q", tags=["x"], config={"lr": 2, "depth": 3})
    err = capsys.readouterr().err
    assert "project, tags, config.lr" in err and 'reinit="create_new"' in err
    assert run.config.as_dict() == {"lr": 1, "depth": 3}
    trackd.init(project="p", config={"lr": 1})
    assert "without effect" not in capsys.readouterr().err


# -- the platform -----------------------------------------------------------------------------------------------------


def test_other_systems_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(trackd.UnsupportedPlatformError, match="Linux and macOS, not on win32"):
        trackd.init()


def test_free_threaded_builds_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "abiflags", "t", raising=False)
    with pytest.raises(trackd.UnsupportedPlatformError, match="free-threaded"):
        trackd.init()


def test_no_git_is_run_and_no_network_is_touched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("init() started something or opened a socket")

    import socket

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    trackd.init(settings={"upstream": "hub.invalid:1"}).log({"a": 1})


def test_run_places_are_private(home: Path) -> None:
    trackd.init()
    (instance,) = [p for p in home.iterdir() if (p / "spool").is_dir()]
    assert instance.stat().st_mode & 0o077 == 0 and (instance / "spool").stat().st_mode & 0o077 == 0
    assert run_places.RUNS == "trackd-runs"

"""`trackd config list`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from trackd_daemon.cli import config
from trackd_proto import settings as table
from typer.testing import CliRunner

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    app = typer.Typer()
    app.callback()(lambda: None)
    config.register(app)
    return app


def test_every_setting_is_listed_as_toml(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_TAGS", 'a,b "c"')
    result = CliRunner().invoke(app, ["config", "list"])
    assert result.exit_code == 0
    listed = tomllib.loads(result.output)
    assert list(listed) == list(table.NAMES) and listed["tags"] == ["a", 'b "c"']


def test_origin_names_file_and_variable(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trackd.toml").write_text('project = "p"')
    monkeypatch.setenv("TRACKD_MODE", "offline")
    lines = CliRunner().invoke(app, ["config", "list", "--origin"]).output.splitlines()
    origins = {line.split()[0]: line.split("# ")[1] for line in lines}
    assert origins["project"] == str(tmp_path / "trackd.toml")
    assert (origins["mode"], origins["strict"]) == ("TRACKD_MODE", "default")


def test_json_is_for_programs(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_HTTP_PORT", "8123")
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["config", "list", "--json"]).stdout)}
    assert set(rows) == set(table.NAMES)
    port = rows["http_port"]
    assert (port["value"], port["origin"], port["variable"]) == (8123, "TRACKD_HTTP_PORT", "TRACKD_HTTP_PORT")


def test_a_bad_value_is_an_error_here(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKD_MODE", "of")
    result = CliRunner().invoke(app, ["config", "list"])
    assert result.exit_code == 1
    assert "TRACKD_MODE" in result.output and 'mode              = "online"' in result.output

"""Names that nobody gave."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from trackd import naming, words


def test_ids_are_eight_characters_of_base_36_and_differ() -> None:
    ids = {naming.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(re.fullmatch("[0-9a-z]{8}", each) for each in ids)


def test_names_are_two_words() -> None:
    names = {naming.new_name() for _ in range(300)}
    assert len(names) > 250
    assert all(re.fullmatch("[a-z]+-[a-z]+", name) for name in names)
    assert len(set(words.FIRST)) == len(words.FIRST) and len(set(words.SECOND)) == len(words.SECOND)


def script(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "train.py"
    file.touch()
    return str(file)


def test_the_project_is_the_git_root_of_the_script_not_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vision/.git").mkdir(parents=True)
    (tmp_path / "elsewhere/.git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert naming.default_project(script(tmp_path / "vision/a/b")) == "vision"


def test_a_worktree_has_a_git_file(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.git").write_text("gitdir: /elsewhere")
    assert naming.default_project(script(tmp_path / "tree/src")) == "tree"


def test_without_git_it_is_the_folder_of_the_script(tmp_path: Path) -> None:
    assert naming.default_project(script(tmp_path / "digits")) == "digits"


def test_without_script_and_git_it_is_uncategorized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert naming.default_project("") == "uncategorized"


def test_an_installed_command_does_not_make_a_project_named_bin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "code/.git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "code")
    assert naming.default_project(script(tmp_path / "venv/bin")) == "code"


def test_a_folder_name_becomes_a_name_that_a_project_may_have(tmp_path: Path) -> None:
    project = naming.default_project(script(tmp_path / "a#b %c:d"))
    assert project == "a-b -c-d"
    assert not naming.project_error(project)
    long = naming.default_project(script(tmp_path / ("ü" * 100)))
    assert len(long.encode()) <= 128 and not naming.project_error(long)


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a/b", "a\\b", "a#b", "a?b", "a%b", "a:b", ".", "..", "x" * 129, "a\nb"]
)
def test_projects_that_cannot_be(name: str) -> None:
    assert naming.project_error(name)


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "a;b", "a,b", "a#b", "a?b", "a'b", "..", "a\0b", "x" * 129])
def test_ids_that_cannot_be(name: str) -> None:
    assert naming.id_error(name)


@pytest.mark.parametrize("name", ["a", "run 1", "日本語", "a.b-c_d", "x" * 128])
def test_names_that_can_be(name: str) -> None:
    assert not naming.project_error(name) and not naming.id_error(name)

"""Whose daemon is started: the newest that still exists, and never by turns."""

from pathlib import Path

import pytest
from trackd_proto.layout import Installation, Published
from trackd_proto.local import installations
from trackd_proto.version import VERSION


def there(directory: Path, version: str) -> Installation:
    (directory / version).mkdir(exist_ok=True)
    return Installation(version, ["/bin/sh"], str(directory / version))


def published(newest: Installation | None) -> Published:
    return Published(1, 0.0, 1, "/d1.sock", "0.0.1", 1, 1, "agent", "", newest)


@pytest.mark.parametrize(
    ("version", "than", "is_newer"),
    [("0.10.0", "0.9.0", True), ("0.9.0", "0.10.0", False), ("1.0", "1.0", False), ("1.0.1", "1.0", True)],
)
def test_versions_are_compared_by_their_numbers(version: str, than: str, is_newer: bool) -> None:
    assert installations.is_newer(version, than) is is_newer


def test_an_older_daemon_keeps_the_newer_in_mind_and_the_other_way_round_not(tmp_path: Path) -> None:
    old, new = there(tmp_path, "1.9.0"), there(tmp_path, "1.10.0")
    assert installations.newest(new, old) == new
    assert installations.newest(old, new) == new
    assert installations.newest(None, old) == old


def test_what_was_uninstalled_is_forgotten(tmp_path: Path) -> None:
    old, new = there(tmp_path, "1.9.0"), there(tmp_path, "1.10.0")
    Path(new.place).rmdir()
    assert installations.newest(new, old) == old
    assert installations.newest(
        Installation("1.11.0", [str(tmp_path / "python")], old.place), there(tmp_path, "1")
    ) == (there(tmp_path, "1"))


def test_what_was_installed_over_counts_as_what_it_is_now(tmp_path: Path) -> None:
    new = there(tmp_path, "1.10.0")
    now = Installation("1.9.0", new.command, new.place)
    assert installations.newest(new, now) == now


def test_ours_is_the_second_choice_behind_a_newer_one_and_the_first_before_an_older_one(tmp_path: Path) -> None:
    newer, older, ours = there(tmp_path, "999.0"), there(tmp_path, "0.0.1"), installations.own()
    assert (ours.version, Path(ours.place).name) == (VERSION, "trackd_daemon")
    assert installations.to_start(published(newer)) == [newer, ours]
    assert installations.to_start(published(older)) == installations.to_start(None) == [ours]

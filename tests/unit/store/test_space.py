"""A hub stops taking data while there is still space left to delete and to compact with."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trackd_daemon.errors import StoreFullError
from trackd_daemon.store.space import RESERVE_BYTES, Space
from trackd_proto.limits import GIB, MIB


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk of 100 GiB; free blocks and inodes can be set. Checked at every call."""
    status = SimpleNamespace(f_bavail=50 * GIB, f_frsize=1, f_blocks=100 * GIB, f_files=1000, f_favail=1000)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    monkeypatch.setattr("trackd_daemon.store.space._CHECK_S", 0.0)
    return status


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was asked for, instead of so much of the real disk."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _fd, _at, size: sizes.append(size))
    return sizes


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("f_bavail", GIB + 15 * MIB, "trackd leaves"), ("f_favail", 3, "no inodes"), ("f_bavail", 0, "only 0 bytes")],
)
def test_it_stops_before_everything_is_used_and_goes_on_afterwards(
    tmp_path: Path, disk: SimpleNamespace, allocated: list[int], field: str, value: Any, said: str
) -> None:
    space = Space(tmp_path, 0)
    space.check()
    before = getattr(disk, field)
    setattr(disk, field, value)
    with pytest.raises(StoreFullError, match=said):
        space.check()
    setattr(disk, field, before)
    space.check()


def test_the_reserve_is_made_where_there_is_plenty_given_once_and_made_again(
    tmp_path: Path, disk: SimpleNamespace, allocated: list[int]
) -> None:
    space = Space(tmp_path, 0)
    assert not space.release()
    space.check()
    assert allocated == [RESERVE_BYTES]
    assert space.release()
    assert not space.release()
    disk.f_bavail = GIB + RESERVE_BYTES
    space.check()
    assert not (tmp_path / "reserve").exists(), "what was just freed is for those who need it"
    disk.f_bavail = 50 * GIB
    space.check()
    assert allocated == [RESERVE_BYTES] * 2


def test_a_disk_too_full_for_a_reserve_is_left_without_one(
    tmp_path: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    Space(tmp_path, 0).check()
    assert not (tmp_path / "reserve").exists()


def test_without_a_limit_nothing_is_looked_at(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = 0
    Space(tmp_path, None).check()

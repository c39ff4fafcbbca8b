"""How an attempt ended, from what is known about it."""

from __future__ import annotations

import pytest
from trackd.ending import Ending
from trackd.ephemeral import is_ephemeral


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "state", "code", "cause"),
    [
        (None, "finished", 0, None),
        (SystemExit(), "finished", 0, None),
        (SystemExit(0), "finished", 0, None),
        (SystemExit(3), "failed", 3, "exit code 3"),
        (SystemExit("no data"), "failed", 1, "no data"),
        (KeyboardInterrupt(), "killed", 130, "KeyboardInterrupt"),
        (ValueError("bad lr"), "failed", 1, "ValueError: bad lr"),
        (Unprintable(), "failed", 1, "Unprintable"),
    ],
)
def test_from_an_exception(error: BaseException | None, state: str, code: int, cause: str | None) -> None:
    assert Ending.of_error(error) == Ending(state, code, cause)


@pytest.mark.parametrize(("code", "state"), [(None, "finished"), (0, "finished"), (1, "failed"), (-9, "failed")])
def test_from_a_code(code: int | None, state: str) -> None:
    assert Ending.of_code(code).state == state


MOUNTS = r"""
22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
23 22 0:21 / /proc rw - proc proc rw
24 22 8:1 / /data rw,relatime shared:1 - ext4 /dev/sda1 rw
25 24 0:30 / /data/fast rw - tmpfs tmpfs rw
26 22 8:2 / /mnt/my\040disk rw - xfs /dev/sdb rw
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/x", True),
        ("/data/home", False),
        ("/database", True),
        ("/data/fast", True),
        ("/data/fast/x", True),
        ("/mnt/my disk/x", False),
    ],
)
def test_ephemeral_places(path: str, expected: bool) -> None:
    assert is_ephemeral(path, {}, MOUNTS) is expected


def test_the_scratch_of_a_job_is_ephemeral() -> None:
    assert is_ephemeral("/data/scratch/1/home", {"SLURM_TMPDIR": "/data/scratch/1"}, MOUNTS)
    assert not is_ephemeral("/data/scratch/12", {"SLURM_TMPDIR": "/data/scratch/1"}, MOUNTS)

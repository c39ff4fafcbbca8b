"""A real agent whose system calls on its log kill it, fail, fall short or lose data: it goes on, and nothing is lost.

T2, T6, T7; long form: scripts/torture syscalls.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import shim, syscalls


@pytest.fixture
def directory() -> Iterator[Path]:
    if shim.library() is None:
        pytest.skip("no C compiler (gcc) for the shim, or not Linux")
    with tempfile.TemporaryDirectory(prefix="trackd-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def test_a_log_whose_calls_fail_or_kill(directory: Path) -> None:
    stage, outcome = syscalls.Stage(directory), syscalls.Outcome()
    async with stage.open():
        await syscalls.kill_at_each_call(stage, outcome, step=7, most=8)
        assert (outcome.fired, outcome.killed) == (2, 2)
        await syscalls.fail(stage, outcome, "pwrite", "fail", errno.EIO)
        await syscalls.fail(stage, outcome, "pwrite", "short", 0)
        await syscalls.fail(stage, outcome, "fdatasync", "drop", errno.EIO)
    assert outcome.problems == []
    assert outcome.fired == 5

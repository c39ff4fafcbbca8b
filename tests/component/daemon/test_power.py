"""The power fails: nothing that was called durable is gone, what is missing of a writer is its end, and nothing that
never was comes up (T21).

Long form: scripts/torture power.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import crash_states


@pytest.fixture
def fast_place() -> Iterator[Path]:
    """Thousands of small files."""
    directory = Path(tempfile.mkdtemp(prefix="trackd-power-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("seed", [1, 3])
def test_in_every_state_that_a_disk_may_be_in(seed: int, fast_place: Path) -> None:
    tally = crash_states.simulated(fast_place, 250, seed, samples=4)
    assert tally.problems == []
    assert tally.states >= 250
    assert min(tally.lossy, tally.torn, tally.exhausted) > 0, "the faults have fired"

"""Many writers on one agent, killed with all of it in its log; long forms: scripts/torture writers, backlog.py."""

import tempfile
from pathlib import Path

from support import crowd


def test_hundreds_of_writers_wait_in_the_log_and_arrive() -> None:
    with tempfile.TemporaryDirectory(prefix="trackd-crowd-") as directory:
        outcome = crowd.drive(Path(directory), clients=2, runs=30, last=40, timeout_s=60)
    assert not outcome.problems
    assert outcome.held == 2 * 30 * 39
    assert outcome.wal_bytes > 0, "the agent was killed with something in its log"
    assert outcome.samples > 5

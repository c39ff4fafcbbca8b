"""log() goes on whatever stands still behind it, and nothing is lost; long form: scripts/torture nonblocking."""

import tempfile
from pathlib import Path

from support import nonblocking


def test_log_does_not_wait_for_those_who_stand_still() -> None:
    with tempfile.TemporaryDirectory(prefix="trackd-nonblocking-") as directory:
        outcome = nonblocking.hold(Path(directory), "agent stopped", 1.0, rate=1000)
    assert outcome.proof, "the fault was there"
    assert outcome.is_exact, outcome
    assert len(outcome.took_ns) > 200
    # Whoever waited for the one that stood still would have waited for a second.
    assert outcome.percentile_us(1.0) < 500_000

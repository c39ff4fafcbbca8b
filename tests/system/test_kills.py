"""SIGKILL right after the 2,000th log() returned: 2,000 rows in the hub, once each; long form: scripts/torture-kill."""

from pathlib import Path

import pytest
from support import kills


@pytest.mark.parametrize("victims", kills.SCENARIOS.values(), ids=kills.SCENARIOS.keys())
def test_every_row_arrives_once(victims: tuple[str, ...], trackd_home: Path) -> None:
    for delay_s in (0.0, 0.5):  # with a daemon that is only starting, and with one that is up
        outcome = kills.kill(trackd_home, victims, delay_s=delay_s)
        assert (outcome.rows, outcome.is_exact) == (kills.ROWS, True)

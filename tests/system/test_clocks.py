"""T12: no run notices wall clocks that jump or stand still; long form: scripts/torture clocks.

A real trainer with a forked child, its courier, an agent and a hub, each with a wall clock that is set while they run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import clocks, shim

pytestmark = pytest.mark.skipif(shim.library("clock.c") is None, reason="needs a C compiler")


@pytest.fixture
def site(_clean_environment: None, tmp_path: Path) -> Iterator[clocks.Site]:
    with clocks.site(tmp_path) as one:
        yield one


def test_no_row_is_late_lost_or_out_of_order_when_all_clocks_jump_and_stand_still(site: clocks.Site) -> None:
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    for setting in ("ten years ahead", "ten years back", "standing still"):
        for clock in site.clocks(host).values():
            clocks.SETTINGS[setting](clock)
        site.wait_for_proofs(host, "run")
        assert site.watch("run", 0.5).behind_s < clocks.FRESH_S
    assert site.problems(host) == []


def test_a_clock_set_back_while_the_agent_waits_for_its_hub_does_not_lengthen_the_wait(site: clocks.Site) -> None:
    host = site.host("a")
    host.train("run")
    site.wait_for_rows("run")
    site.stop_hub()
    host.wait_for_retry()
    for clock in site.clocks(host).values():
        clock.set(-clocks.YEARS_S)
    site.start_hub()
    assert site.catch_up_s("run") < clocks.FRESH_S
    site.wait_for_proofs(host, "run")
    assert site.problems(host) == []

"""T8: a disk that is really full; long form: scripts/torture diskfull."""

import pytest
from support import diskfull
from support.full_disk import Outcome, Size

pytestmark = pytest.mark.skipif(not diskfull.can_mount(), reason="needs user and mount namespaces")
SHORT = Size(full_s=1.0, after_s=1.0, rate=1000, row_bytes=3500, spool_quota_bytes=4 * 2**20)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Of these scenarios, side by side."""
    running = {name: diskfull.start(name, SHORT) for name in ("embedded", "hub down")}
    return {name: diskfull.outcome(process, 100) for name, process in running.items()}


@pytest.mark.parametrize("name", ["embedded", "hub down"])
def test_what_is_lost_on_a_full_disk_is_declared_exactly_and_the_rest_arrives(
    outcomes: dict[str, Outcome], name: str
) -> None:
    one = outcomes[name]
    assert one.refusals > 0, "the disk was full"
    assert any("bytes are free" in line or "No space left" in line for line in one.status), one.status
    assert one.missing > 0, "something was lost: else nothing was shown"
    lost = one.missing + one.end_lost
    assert sum(loss["count"] for loss in one.losses) == lost
    assert {loss["reason"] for loss in one.losses} == {"full"}
    assert (one.undeclared, one.false_alarms, one.doubled, one.uncounted) == ([], [], 0, 0)
    assert (one.agent_restarts, one.reads_failed) == (0, 0)
    assert one.resumed_s <= 30
    assert one.state == "finished"
    assert f"{lost:,} records" in one.summary, one.summary

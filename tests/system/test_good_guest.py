"""T24: the courier is nobody's child, and a trainer that is PID 1 of a container loses nothing."""

from pathlib import Path

import pytest
from support import guest


def test_wait_and_sigchld_see_only_the_users_own_children(trackd_home: Path, tmp_path: Path) -> None:
    assert guest.children(tmp_path) == guest.ONLY_ITS_OWN


def test_a_pipeline_ends_with_the_trainer(trackd_home: Path, tmp_path: Path) -> None:
    """`python train.py 2>&1 | tee log`: courier and daemon live on and hold neither end of the pipe."""
    assert guest.pipeline(trackd_home, tmp_path) < 5


def test_courier_and_daemon_leave_the_trainer_its_processor_and_its_terminal(trackd_home: Path, tmp_path: Path) -> None:
    """Lower priority, also where the kernel shares the processors out by terminal session first (autogroups)."""
    assert guest.priorities(trackd_home, tmp_path) == []


@pytest.mark.skipif(not guest.can_unshare(), reason="needs user and PID namespaces")
def test_a_trainer_that_is_pid_one_loses_nothing_on_a_clean_exit(trackd_home: Path, tmp_path: Path) -> None:
    """When PID 1 ends the kernel kills courier and daemon with it: what is then in the spool must still arrive."""
    guest.pid_one(tmp_path, "one")
    guest.send_rest()
    import trackd

    (run,) = trackd.Api().runs("guest")
    assert [row["x"] for row in run.scan_history()] == list(range(2000))

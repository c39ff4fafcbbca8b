"""T23: a signal handler of the user's may log, flush and finish at any moment of a program that logs."""

from pathlib import Path

from support import handlers


def test_handlers_that_log_flush_and_finish_hang_nothing_and_lose_nothing(trackd_home: Path) -> None:
    outcome = handlers.trial(handlers.own_python(), trackd_home, 6, seed=23)
    assert outcome.wrong == []
    assert outcome.handlers >= 6
    assert outcome.inside > 0, "no handler came inside log()"
    assert outcome.finalizers > 0

"""T14: whatever forks beside a run that logs, neither parent nor child hangs, dies or loses a row."""

import pytest
from support import forking

KINDS = ("multiprocessing fork", "nested fork", "fork inside log()", "fork, courier dead", "C-level fork")


@pytest.mark.parametrize("kind", KINDS)
def test_forks(kind: str) -> None:
    found = forking.forks(kind, 12, hang_s=30)
    assert found.is_good, found
    assert kind != "fork inside log()" or found.facts["inside"] > 0

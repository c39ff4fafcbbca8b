"""How long the end of many runs takes together."""

from types import SimpleNamespace
from typing import Any

import pytest
from trackd import finishing
from trackd.finishing import _Patience


class Clock:
    """Time that only waiting spends."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class StillLane:
    """Durable at once, never committed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def wait(self, level: str, timeout_s: float) -> bool:
        if level == "durable":
            return True
        self._clock.now += timeout_s
        return False

    def watermarks(self) -> Any:
        return SimpleNamespace(committed=5)


@pytest.mark.parametrize(("is_ephemeral", "longest_s"), [(False, 0.2), (True, 1.1)])
def test_a_hundred_open_runs_wait_together_no_longer_than_one(
    is_ephemeral: bool, longest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(finishing, "time", clock)
    monkeypatch.setattr(finishing.ephemeral, "is_ephemeral", lambda _home: is_ephemeral)
    run = SimpleNamespace(
        _lane=StillLane(clock), offline=False, _identity=SimpleNamespace(route="hub:1", home="/h"),
        _settings=SimpleNamespace(finish_timeout=60.0),
    )  # fmt: skip
    patience = _Patience(1.0)
    for _ in range(100):
        finishing._wait(run, patience, is_granted=False)  # type: ignore[arg-type]
    assert clock.now - 100.0 <= longest_s


def test_a_granted_wait_is_for_all_runs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(finishing, "time", clock)
    run = SimpleNamespace(_lane=StillLane(clock), offline=False)
    patience = _Patience(30.0)
    for _ in range(10):
        finishing._wait(run, patience, is_granted=True)  # type: ignore[arg-type]
    assert clock.now - 100.0 <= 30.0

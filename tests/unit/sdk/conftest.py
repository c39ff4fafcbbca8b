"""Whatever reads a spool here is closed after its test: a run of all tests must do with 1,024 open files."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from trackd.courier.lanes import SpoolLane


@pytest.fixture(autouse=True)
def _spools_are_let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[SpoolLane] = []
    make = SpoolLane.__init__

    def noted(self: SpoolLane, *arguments: Any) -> None:
        make(self, *arguments)
        made.append(self)

    monkeypatch.setattr(SpoolLane, "__init__", noted)
    yield
    for lane in made:
        with contextlib.suppress(ValueError):  # the test did it
            lane.close()

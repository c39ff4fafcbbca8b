"""Fixtures for every test: a private trackd home, and nothing left running when the test is over."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: playwright's event loop runs on in the main thread, and no other could start beside it."""
    items.sort(key=lambda item: "browser" in item.path.parts)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith(("TRACKD_", "WANDB_", "SLURM_", "GRPC_")):
            monkeypatch.delenv(name)


@pytest.fixture
def trackd_home(_clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh TRACKD_HOME, set in the environment. Afterwards its daemon and couriers are ended; any other
    process that still names it fails the test."""
    home = Path(tempfile.mkdtemp(prefix="trackd-test-"))
    monkeypatch.setenv("TRACKD_HOME", str(home))
    monkeypatch.setenv("TRACKD_QUIET", "1")
    try:
        yield home
    finally:
        leaks = processes.stop_home(home)
        shutil.rmtree(home, ignore_errors=True)
    assert not leaks, "processes left running by the test:\n" + "\n".join(leaks)

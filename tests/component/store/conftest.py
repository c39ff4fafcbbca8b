"""A store in a temporary directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trackd_daemon.store import EmbeddedStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """An empty store."""
    opened = EmbeddedStore.open(tmp_path / "store")
    yield opened
    opened.close()

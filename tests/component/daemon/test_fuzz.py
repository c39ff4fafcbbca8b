"""T17 in short: a few hundred mutated inputs of each target, and hypothesis's own. Long form: scripts/torture-fuzz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import fuzzing

_FAST = [name for name in fuzzing.TARGETS if name != "hub ingest"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("fuzz")
    for store in fuzzing.stores.values():
        store.close()
    fuzzing.stores.clear()


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_mutated_bytes_raise_only_what_callers_handle(name: str, place: Path) -> None:
    directory = place / name
    directory.mkdir()
    report = fuzzing.fuzz(name, directory, seconds=20, most=60)
    assert report.problems == ()
    assert report.inputs >= 60
    assert report.slowest_s < 5 * fuzzing.MAX_SECONDS, "several times the bar: this machine may be busy"


@pytest.mark.parametrize("name", _FAST)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=2000))
def test_any_bytes_raise_only_what_callers_handle(name: str, place: Path, data: bytes) -> None:
    directory = place / f"any {name}"
    directory.mkdir(exist_ok=True)
    assert fuzzing.attempt(fuzzing.TARGETS[name], directory, data) == ""


def test_an_uncaught_exception_is_seen(tmp_path: Path) -> None:
    def fails(_: Path, data: bytes) -> object:
        return data[1_000_000]

    assert "IndexError at test_fuzz.py" in fuzzing.attempt(fuzzing.Target(fails, list), tmp_path, b"")

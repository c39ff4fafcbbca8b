"""Runs whose records stay in the spool: no courier, no daemon."""

from __future__ import annotations

import atexit
import builtins
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trackd
from trackd import current, exit, finishing, messages
from trackd.session import Session


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TRACKD_HOME of this test; afterwards the process is as it was."""
    for name in [name for name in os.environ if name.startswith("TRACKD_")]:
        monkeypatch.delenv(name)
    place = tmp_path / "home"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TRACKD_HOME", str(place))
    monkeypatch.setattr(Session, "launch_courier", lambda self: None)
    monkeypatch.setattr(Session, "_current", None)
    monkeypatch.setattr(finishing, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(messages, "_warned", set())
    monkeypatch.setattr(current, "_last", None)
    monkeypatch.setattr(exit, "_pid", 0)
    hooks = sys.excepthook, sys.exit, type(builtins.exit).__call__
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(atexit, "register", lambda function: function)
    yield place
    for run in [*current.runs(), *current.attached()]:
        run.depth = 0
        run.finish()
    assert trackd.run is None
    sys.excepthook, sys.exit, type(builtins.exit).__call__ = hooks
    for number, handler in handlers.items():
        signal.signal(number, handler)
    messages.configure(silent=False, quiet=False)

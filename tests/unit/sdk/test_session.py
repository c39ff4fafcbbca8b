"""Whoever logs has somebody who sends it, and hears of it if not; training goes on in any case."""

import errno
from pathlib import Path

import pytest
from trackd import messages, session
from trackd.session import Session
from trackd_proto.layout import Instance


def test_a_courier_that_cannot_be_started_is_tried_again_and_no_error_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's limit of processes is a matter of the moment."""
    tries: list[list[str]] = []

    def launch(command: list[str]) -> None:
        tries.append(command)
        if len(tries) <= 2:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(session, "launch", launch)
    monkeypatch.setattr(messages, "_warned", set())
    messages.configure(silent=False, quiet=False)
    ours = Session(Instance(tmp_path, "h" * 12), 1 << 20)
    ours.launch_courier()
    assert "cannot start the process that sends what is logged" in capsys.readouterr().err
    ours.see_to_courier()
    ours.see_to_courier()
    ours.see_to_courier()
    assert len(tries) == 3, "and no more once it runs"

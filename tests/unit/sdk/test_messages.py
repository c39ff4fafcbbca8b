"""What is printed, and that printing can never hurt."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from trackd import messages

SSH = {"SSH_CONNECTION": "10.0.0.5 51000 10.0.0.9 22", "USER": "ada"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(messages, "_warned", set())
    yield
    messages.configure(silent=False, quiet=False)


@pytest.mark.parametrize(
    ("silent", "quiet", "expected"),
    [
        (False, False, "news link warning: careful"),
        (False, True, "link warning: careful"),
        (True, False, ""),
        (True, True, ""),
    ],
)
def test_silent_and_quiet(silent: bool, quiet: bool, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    messages.configure(silent=silent, quiet=quiet)
    messages.say("news")
    messages.tell("link")
    messages.warn_once("careful")
    messages.warn_once("careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert " ".join(line.removeprefix("trackd: ") for line in err.splitlines()) == expected


class Broken:
    def write(self, _text: str) -> None:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Broken()])
def test_a_broken_stderr_is_no_error(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    messages.tell("nobody hears this")


def test_links() -> None:
    assert messages.link_lines("http://127.0.0.1:4100/p/a/r/b", "http://127.0.0.1:4100/p/a", "t1", {}) == [
        "run      http://127.0.0.1:4100/p/a/r/b#ticket=t1",
        "project  http://127.0.0.1:4100/p/a",
    ]


def test_under_ssh_the_forwarding_command_is_there() -> None:
    assert messages.ssh_line("http://127.0.0.1:4100/p/a", SSH) == "ssh -N -L 4100:127.0.0.1:4100 ada@10.0.0.9"
    assert messages.ssh_line("http://127.0.0.1:4100/p/a", {}) == ""
    assert messages.ssh_line("https://hub.example/p/a", SSH) == ""
    assert messages.link_lines("http://127.0.0.1:4100/x", "", "", SSH)[-1].endswith("ada@10.0.0.9")

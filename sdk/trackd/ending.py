"""How an attempt ended, and how to tell."""

import contextlib
from typing import Any, Final

import msgspec

_CAUSE_CHARS: Final = 1_000
_TRACEBACK_CHARS: Final = 4_000
"""The tail is kept: the innermost call and the exception itself stand last."""


class Ending(msgspec.Struct, frozen=True):
    """How an attempt ended."""

    state: str
    """"finished", "failed", "killed" or "preempted"."""
    exit_code: int | None = 0
    cause: str | None = None
    traceback: str | None = None
    """Tail of the exception's traceback, as Python prints it."""
    is_assumed: bool = False
    """Said without knowing the process's exit code, which is stronger if the courier learns it."""

    def body(self) -> dict[str, Any]:
        """Of an EXIT record."""
        body: dict[str, Any] = {"state": self.state, "exit_code": self.exit_code, "cause": self.cause}
        if self.traceback:
            body["traceback"] = self.traceback
        if self.is_assumed:
            body["is_assumed"] = True
        return body

    @staticmethod
    def of_code(code: int | None) -> "Ending":
        """From an exit code."""
        return Ending("failed", code, f"exit code {code}") if code else Ending("finished", 0)

    @staticmethod
    def of_error(error: BaseException | None) -> "Ending":
        """From the exception that left a ``with`` block or ended the program; None: there was none."""
        if error is None:
            return Ending("finished", 0)
        if isinstance(error, SystemExit):
            return Ending.of_exit(error.code)
        if isinstance(error, KeyboardInterrupt):
            return Ending("killed", 130, "KeyboardInterrupt")
        tail = None
        with contextlib.suppress(Exception):  # somebody else's __str__
            tail = _tail(error)
        with contextlib.suppress(Exception):
            return Ending("failed", 1, f"{type(error).__name__}: {error}"[:_CAUSE_CHARS], tail)
        return Ending("failed", 1, type(error).__name__, tail)

    @staticmethod
    def of_exit(code: object) -> "Ending":
        """From the argument of `sys.exit`: None, an integer, or anything else, which is printed and means 1."""
        if code is None or isinstance(code, int):
            return Ending.of_code(None if code is None else int(code))
        return Ending("failed", 1, str(code)[:_CAUSE_CHARS])


def _tail(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    import traceback  # noqa: PLC0415 - only a run that failed pays for it

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    if len(text) <= _TRACEBACK_CHARS:
        return text
    kept = text[-_TRACEBACK_CHARS:]
    return "…\n" + kept.partition("\n")[2] if "\n" in kept else "…" + kept

"""How an attempt ended, and how to tell."""

import contextlib
from typing import Any

import msgspec


class Ending(msgspec.Struct, frozen=True):
    """How an attempt ended."""

    state: str
    """"finished", "failed", "killed" or "preempted"."""
    exit_code: int | None = 0
    cause: str | None = None

    def body(self) -> dict[str, Any]:
        """Of an EXIT record."""
        return {"state": self.state, "exit_code": self.exit_code, "cause": self.cause}

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
        with contextlib.suppress(Exception):  # somebody else's __str__
            return Ending("failed", 1, f"{type(error).__name__}: {error}"[:1000])
        return Ending("failed", 1, type(error).__name__)

    @staticmethod
    def of_exit(code: object) -> "Ending":
        """From the argument of `sys.exit`: None, an integer, or anything else, which is printed and means 1."""
        if code is None or isinstance(code, int):
            return Ending.of_code(None if code is None else int(code))
        return Ending("failed", 1, str(code)[:1000])

"""Errors of something that goes round and round: each is logged once, however often it comes back."""

import logging
from typing import Final

_MOST: Final = 100
_logger = logging.getLogger("trackd")


class Complaints:
    """What one loop has complained of so far."""

    def __init__(self, what: str) -> None:
        """`what`: the loop, for the log."""
        self._what = what
        self._made: set[str] = set()

    def add(self, error: Exception) -> None:
        """The loop goes on after this."""
        text = f"{type(error).__name__}: {error}"
        if text in self._made:
            return
        if len(self._made) >= _MOST:  # names and numbers in it that are always new
            self._made.clear()
        self._made.add(text)
        _logger.error("%s: %s", self._what, text, exc_info=error)

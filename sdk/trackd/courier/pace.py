"""How long the courier rests between two rounds: each of them may cost the trainer its turn on a busy core."""

from typing import Final

SHORT_S: Final = 0.005
LONG_S: Final = 0.05
"""Part of the freshness budget."""
_YOUNG_S: Final = 1.0
_AWAITED_S: Final = 2.0
"""Nobody waits longer for the end of a lane than finish() does; a daemon that is away is not polled in haste."""
_BYTES_PER_ROUND: Final = 256 * 1024
"""A quarter of the smallest chunk: the next one is ready before this one is full."""


class Pace:
    """Short rests while much comes in, and in the first second of a lane, when nobody knows how much will."""

    def __init__(self) -> None:
        self._rest_s = SHORT_S
        self._young_until_s = 0.0
        self._awaited_since_s: float | None = None

    def begin(self, now_s: float) -> None:
        """A lane was found."""
        self._young_until_s = now_s + _YOUNG_S

    def rest_s(self, sent_bytes: int, now_s: float, *, is_awaited: bool) -> float:
        """Seconds until the next round, when the last one sent so many bytes after the rest given before.

        `is_awaited`: somebody waits for the end of a lane.
        """
        if not is_awaited:
            self._awaited_since_s = None
        elif self._awaited_since_s is None:
            self._awaited_since_s = now_s
        is_urgent = self._awaited_since_s is not None and now_s - self._awaited_since_s < _AWAITED_S
        if is_urgent or now_s < self._young_until_s:
            self._rest_s = SHORT_S
        else:
            enough = self._rest_s * _BYTES_PER_ROUND / max(sent_bytes, 1)
            # Quick to hurry, slow to relax: a round that found little is no proof of a calm lane.
            self._rest_s = min(LONG_S, max(SHORT_S, min(enough, 2 * self._rest_s)))
        return self._rest_s

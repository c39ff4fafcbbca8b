"""How fast records come in. Pure: the caller brings the time."""

from collections import deque
from typing import Final

from trackd_proto.limits import MIB

HIGH_BYTES_PER_S: Final = 15 * MIB
"""More than the embedded store can take in on two cores; making records durable goes before showing them then."""
_WINDOW_S: Final = 0.25


class Pressure:
    """The rate of the last quarter of a second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def add(self, now_s: float, size: int) -> None:
        """So many bytes came in at this time (any monotonic clock, seconds)."""
        self._seen.append((now_s, size))
        self._bytes += size
        self._forget(now_s)

    def is_high(self, now_s: float) -> bool:
        """Whether records come in faster than HIGH_BYTES_PER_S."""
        self._forget(now_s)
        return self._bytes > HIGH_BYTES_PER_S * _WINDOW_S

    def _forget(self, now_s: float) -> None:
        while self._seen and self._seen[0][0] < now_s - _WINDOW_S:
            self._bytes -= self._seen.popleft()[1]

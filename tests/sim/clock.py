"""Time and chance of a history: processes see this clock, whose wall time may jump; their ids come from its seed."""

import random

_EPOCH_NS = 1_800_000_000_000_000_000
_TICK_NS = 4_000_000
"""What the clock of a file system's timestamps moves by, where the kernel has no finer ones."""


class SimClock:
    """Stands in for the module `time` (what the code under test uses of it)."""

    def __init__(self) -> None:
        self.begin(random.Random(0))

    def begin(self, rng: random.Random) -> None:
        """A new history."""
        self._rng = rng
        self._now_ns = 1_000_000_000
        self._wall_ns = _EPOCH_NS

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._now_ns += int(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_ns += int(seconds * 1e9)

    def monotonic_ns(self) -> int:
        """As time.monotonic_ns."""
        return self._now_ns

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self._now_ns / 1e9

    def time_ns(self) -> int:
        """As time.time_ns."""
        return self._wall_ns + self._now_ns

    def time(self) -> float:
        """As time.time."""
        return self.time_ns() / 1e9

    def file_ns(self) -> int:
        """What a file changed now has as its time of change."""
        return self.time_ns() // _TICK_NS * _TICK_NS

    def urandom(self, size: int) -> bytes:
        """As os.urandom."""
        return self._rng.randbytes(size)


CLOCK = SimClock()

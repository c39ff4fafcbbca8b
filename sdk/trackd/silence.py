"""The lane of a disabled run: it takes everything and keeps nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from trackd_proto.spool import Links

from trackd.lane import Watermarks


class NullLane:
    """Looks like a Lane; costs nothing and writes nothing."""

    writer_id = bytes(16)
    refused = 0
    is_in_memory = False
    on_refused: Callable[[], None] | None = None
    step = 0
    has_ordinals = True

    def row(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Nothing."""

    def append(self, kind: int, body: Mapping[str, Any]) -> None:
        """Nothing."""

    def latest(self) -> dict[str, Any]:
        """Nothing was kept."""
        return {}

    def watermarks(self) -> Watermarks:
        """Nothing is on its way."""
        return Watermarks(0, 0, 0, 0, 0)

    def links(self) -> Links | None:
        """There is nothing to see."""
        return None

    def stop_requested(self) -> bool:
        """Nobody can ask."""
        return False

    def assume_exit_code(self, code: int) -> None:
        """Nobody will look."""

    def keep_ending(self, state: str, exit_code: int | None) -> None:
        """Nobody will look."""

    def wait(self, level: str, timeout_s: float) -> bool:
        """There is nothing to wait for."""
        return True

    def close(self) -> None:
        """Nothing."""

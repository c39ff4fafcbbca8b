"""How much disk the log may take. Pure."""

from dataclasses import dataclass
from typing import Final

from trackd_proto.limits import GIB

_WARN_SHARE: Final = 0.7
_LEAST_INODES: Final = 8
"""Left alone by data, so that a segment with acks can always begin, and daemon.json be written again."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of the log, in bytes; 0 stands for the default that depends on the file system."""

    quota_bytes: int = 0
    min_free_bytes: int = 0

    def limit(self, total_bytes: int) -> int:
        """Most that the log may take on a file system of this size."""
        return self.quota_bytes or min(10 * GIB, total_bytes // 10)

    def warning(self, log_bytes: int, total_bytes: int) -> str:
        """Said while there is still time to do something, "" if there is nothing to say."""
        limit = self.limit(total_bytes)
        if log_bytes < limit * _WARN_SHARE:
            return ""
        return f"the write-ahead log has {log_bytes} of the {limit} bytes that it may take: is the hub taking records?"

    def reason_full(self, log_bytes: int, free_bytes: int, total_bytes: int, free_inodes: int = _LEAST_INODES) -> str:
        """Why nothing may be added now, "" if it may."""
        if free_inodes < _LEAST_INODES:
            return f"only {free_inodes} more files can be made on the disk: delete some"
        if log_bytes >= (limit := self.limit(total_bytes)):
            return f"the write-ahead log has reached its quota of {limit} bytes"
        if free_bytes < (least := self.min_free_bytes or min(GIB, total_bytes // 20)):
            return f"only {free_bytes} bytes are free on the disk, fewer than the {least} that trackd leaves alone"
        return ""

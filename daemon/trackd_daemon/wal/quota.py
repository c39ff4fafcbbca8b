"""How much disk the log may take. Pure."""

from dataclasses import dataclass

from trackd_proto.limits import GIB


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of the log, in bytes; 0 stands for the default that depends on the file system."""

    quota_bytes: int = 0
    min_free_bytes: int = 0

    def limit(self, total_bytes: int) -> int:
        """Most that the log may take on a file system of this size."""
        return self.quota_bytes or min(10 * GIB, total_bytes // 10)

    def reason_full(self, log_bytes: int, free_bytes: int, total_bytes: int) -> str:
        """Why nothing may be added now, "" if it may."""
        if log_bytes >= (limit := self.limit(total_bytes)):
            return f"the write-ahead log has reached its quota of {limit} bytes"
        if free_bytes < (least := self.min_free_bytes or min(GIB, total_bytes // 20)):
            return f"only {free_bytes} bytes are free on the disk, fewer than the {least} that trackd leaves alone"
        return ""

"""The disk below a store: ingest stops while there is something left, so that deleting and compacting still work."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from trackd_proto.limits import GIB, MIB

from trackd_daemon.errors import StoreFullError

RESERVE_BYTES: Final = 64 * MIB
_CHECK_S: Final = 1.0
_LEAST_INODES: Final = 16
"""A commit may need SQLite's two side files and DuckDB's; compaction three files per part."""


class Space:
    """What may be taken, and a file that holds some back for the work that frees space. One thread at a time."""

    def __init__(self, directory: Path, min_free_bytes: int | None) -> None:
        """`min_free_bytes`: what is left to others on this disk; 0: the smaller of 1 GiB and 5 % of it; None: nothing
        is kept free, not even a reserve.
        """
        self._directory = directory
        self._min_free = min_free_bytes
        self._reserve = directory / "reserve"
        self._checked = -_CHECK_S
        self._problem = ""

    def check(self) -> None:
        """Looks at the disk at most once a second. Raises StoreFullError if nothing may be added to the store."""
        now = time.monotonic()
        if self._min_free is not None and now - self._checked >= _CHECK_S:
            self._checked = now
            self._problem = self._look(self._min_free)
        if self._problem:
            raise StoreFullError(self._problem)

    def _look(self, min_free: int) -> str:
        status = os.statvfs(self._directory)
        free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        least = min_free or min(GIB, total // 20)
        reserve = min(RESERVE_BYTES, total // 50)
        if status.f_files and status.f_favail < _LEAST_INODES:
            return f"no inodes are left on the disk of {self._directory}: delete files there"
        # The log below us has the same limit for itself: the store stops first.
        if free < least + reserve // 4:
            return (
                f"only {free} bytes are free on the disk of {self._directory}, and trackd leaves {least} to others: "
                "free some, or delete runs (`trackd delete`)"
            )
        if free > least + 2 * reserve and not self._reserve.exists():
            self._hold(reserve)
        return ""

    def release(self) -> bool:
        """Give the reserve to whoever frees space with it; False if there is none."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _hold(self, size: int) -> None:
        try:
            descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except (OSError, AttributeError):  # no fallocate here: a sparse file would hold nothing back
            with suppress(OSError):
                self._reserve.unlink()

"""The chunks of one lane: how large, how many, within which quota."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Final

from trackd_proto import spool

from trackd import spool as files

_QUICK_S: Final = 2.0
"""A chunk that was full sooner is followed by a larger one."""


class Chunks:
    """Makes them, in order."""

    def __init__(self, directory: Path, writer_id: bytes, quota_bytes: int) -> None:
        self._directory = directory
        self._writer_id = writer_id
        self._quota_bytes = quota_bytes
        self._size = 0  # index of CHUNK_SIZES
        self._made_s = time.monotonic()
        self._there = deque([(0, spool.CHUNK_SIZES[0])])  # (number, bytes) of those that may still be there

    def first(self) -> tuple[files.Chunk, int]:
        """As `following`, for chunk 0. Raises OSError."""
        return self._map(0)

    def following(self, number: int) -> tuple[files.Chunk, int]:
        """The chunk after this one, and where its records must end for now. Raises OSError: there is no space.

        A smaller one where quota or disk are nearly full. After an interrupt the same can be asked again.
        """
        now = time.monotonic()
        if now - self._made_s < _QUICK_S:
            self._size = min(self._size + 1, len(spool.CHUNK_SIZES) - 1)
        following, room = self._fitting(number + 1)
        self._made_s = now
        if not self._there or self._there[-1][0] != number + 1:
            self._there.append((number + 1, len(following)))
        return following, room

    def _fitting(self, number: int) -> tuple[files.Chunk, int]:
        held = self._held_bytes()
        while True:
            try:
                # One more than the current chunk always, a small one: only then is there something that can be freed.
                is_least = self._size == 0 and len(self._there) <= 1
                if held + spool.CHUNK_SIZES[self._size] > self._quota_bytes and not is_least:
                    raise files.NoSpaceError("the spool's quota is used up")
                return self._map(number)
            except files.NoSpaceError:
                if self._size == 0:
                    raise
                self._size -= 1

    def _map(self, number: int) -> tuple[files.Chunk, int]:
        """A chunk, and where its records must end for now (behind the last there is room for an END mark)."""
        chunk = files.map_chunk(self._directory, self._writer_id, number, spool.CHUNK_SIZES[self._size])
        limit = len(chunk) - spool.FRAME_BYTES
        return chunk, limit if chunk.filler is None else min(limit, chunk.filler.advance(spool.CHUNK_HEADER.size + 1))

    def _held_bytes(self) -> int:
        """What this lane's chunks take. They go in order: of those that are left one is looked at, however many."""
        while self._there:
            number, _ = self._there[0]
            if os.access(self._directory / spool.chunk_name(self._writer_id.hex(), number), os.F_OK):
                break
            self._there.popleft()
        return sum(size for _, size in self._there)

"""Reads one writer's chunks in order, from files, never through a map (a failing disk must not be a SIGBUS)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

from trackd_proto import batch, limits, spool

_PATIENCE: Final = 5
"""Reads of a frame that is not whole though it is published before it counts as damaged (a weakly ordered
processor may show the published seq before the bytes)."""


class Position(NamedTuple):
    """Where in a writer's chunks reading goes on."""

    chunk: int
    offset: int
    next_seq: int
    crc: int


START: Final = Position(0, spool.CHUNK_HEADER.size, 1, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """Consecutive records, or a declared loss, as read from the spool."""

    first_seq: int
    count: int
    data: bytes
    """Batch data (trackd_proto.batch); empty for a loss."""
    reason: str
    """Of a loss, else empty."""
    before: Position
    after: Position

    @property
    def next_seq(self) -> int:
        """The seq behind it."""
        return self.first_seq + self.count


class Tail:
    """The read side of one spool. Blocks only on local files."""

    def __init__(self, directory: Path, writer_id: bytes, words: Callable[[int], int]) -> None:
        self._directory = directory
        self._writer_id = writer_id
        self._hex = writer_id.hex()
        self._word = words
        self._file: tuple[int, int] | None = None  # (chunk number, descriptor)
        self._strikes = 0
        self.position = START

    def close(self) -> None:
        """Let go of the open chunk."""
        if self._file is not None:
            os.close(self._file[1])
            self._file = None

    def numbers(self) -> list[int]:
        """The chunks that exist, sorted."""
        return spool.chunk_numbers(iter(os.listdir(self._directory)), self._hex)  # noqa: PTH208

    def rewind(self, position: Position) -> None:
        """Go on reading at an earlier (or later) position."""
        self.position = position

    def seek_start(self) -> None:
        """Go to the oldest chunk that still exists. Its first whole frame says which seq stands there."""
        numbers = self.numbers()
        self.position = START
        if numbers and numbers[0] > 0:
            here = Position(numbers[0], spool.CHUNK_HEADER.size, 1, 0)
            last = self._last()
            found = self._resync(here, last, is_start=True)
            self.position = found[1] if found else here._replace(next_seq=last + 1)

    def read(self, max_bytes: int, is_dead: bool) -> Item | None:
        """The next records, or None if there are none for now.

        `is_dead`: go beyond the published seq, up to the first frame that is not whole, and declare what the
        head says was assigned but cannot be found.
        """
        size = max(max_bytes, _READ_BYTES)
        while True:
            here = self.position
            last = _NO_END if is_dead else self._word(spool.PUBLISHED)
            if here.next_seq > last:
                return None
            data = b"" if here == START and self._is_anothers() else self._pread(here.chunk, here.offset, size)
            result = self._parse(here, data, last, max_bytes, can_grow=len(data) == size < _LARGEST)
            if result is _LARGER:
                size = _LARGEST
            elif result is not _AGAIN:
                return cast("Item | None", result)

    def _is_anothers(self) -> bool:
        """Whether the first chunk is another writer's: there is no rolling hash yet that its frames would have to
        continue."""
        return spool.is_of_another(self._pread(0, 0, spool.CHUNK_HEADER.size), self._writer_id)

    def _last(self) -> int:
        """The last seq that the head speaks of."""
        return max(self._word(spool.PUBLISHED), self._word(spool.ASSIGNED))

    def _parse(self, here: Position, data: bytes, last: int, max_bytes: int, can_grow: bool) -> object:
        payloads: list[memoryview] = []
        found = spool.scan(data, here.offset, last, here.next_seq, here.crc, payloads, max_bytes)
        after = Position(here.chunk, found.offset, found.next_seq, found.crc)
        if payloads:
            self._strikes = 0
            self.position = after
            return Item(here.next_seq, len(payloads), batch.join(payloads), "", here, after)
        if found.at_end:
            self.position = Position(here.chunk + 1, spool.CHUNK_HEADER.size, found.next_seq, found.crc)
            return _AGAIN
        if loss := spool.read_loss(data, found.offset - here.offset, here.next_seq):
            count, offset = loss[0].count, here.offset + loss[1]
            self.position = Position(here.chunk, offset, here.next_seq + count, here.crc)
            return Item(here.next_seq, count, b"", loss[0].reason, here, self.position)
        if can_grow:
            return _LARGER  # perhaps only cut off
        self._strikes += 1
        if self._strikes < _PATIENCE and last != _NO_END:
            return None
        return self._find_rest(here)

    def _find_rest(self, here: Position) -> object:
        """Behind a frame that is not whole: the next whole one, in this chunk or a later one, or the declared end."""
        self._strikes = 0
        last = self._last()
        if last < here.next_seq:
            return None
        if found := self._resync(here, last):
            seq, after = found
            if seq == here.next_seq:
                self.position = after
                return _AGAIN
            if seq - here.next_seq > _MOST:
                return self._declare(here, _MOST, "damaged")
            self.position = after
            return Item(here.next_seq, seq - here.next_seq, b"", "damaged", here, after)
        open_first, open_count = self._word(spool.LOSS_FIRST), self._word(spool.LOSS_COUNT)
        if open_first <= here.next_seq < open_first + open_count:  # the next hop may have the begin of it already
            return self._declare(here, open_first + open_count - here.next_seq, "full")
        if open_count and open_first > here.next_seq:
            return self._declare(here, open_first - here.next_seq, "damaged")
        if last >= here.next_seq:
            return self._declare(here, last + 1 - here.next_seq, "damaged")
        return None

    def _declare(self, here: Position, count: int, reason: str) -> Item:
        count = min(count, _MOST)
        self.position = Position(here.chunk, here.offset, here.next_seq + count, here.crc)
        return Item(here.next_seq, count, b"", reason, here, self.position)

    def _resync(self, here: Position, last: int, *, is_start: bool = False) -> tuple[int, Position] | None:
        """The next whole frame behind `here` (`is_start`: or at it, with any seq)."""
        skipped = _NO_END if is_start else 0
        for number in self.numbers():
            if number < here.chunk:
                continue
            start = here.offset if number == here.chunk else spool.CHUNK_HEADER.size
            # A file that was put into the place of another holds whole frames too. Read in order they do not matter:
            # each frame must continue the rolling hash.
            is_known = number == here.chunk and here.offset > spool.CHUNK_HEADER.size
            head = b"" if is_known else self._pread(number, 0, spool.CHUNK_HEADER.size)
            if spool.is_misplaced(head, self._writer_id, number):
                continue
            data = self._pread(number, start, _CHUNK_READ)
            following = self._pread(number + 1, spool.CHUNK_HEADER.size, spool.FRAME_BYTES)
            is_behind = number > here.chunk or is_start
            at = spool.resync(data, -8 if is_behind else 0, here.next_seq, last, skipped, following)
            if at is not None:
                seq, crc = spool.frame_seq(data, at)
                return seq, Position(number, start + at, seq, crc)
            skipped += len(data)
        return None

    def _pread(self, number: int, offset: int, size: int) -> bytes:
        if self._file is None or self._file[0] != number:
            self.close()
            try:
                path = self._directory / spool.chunk_name(self._hex, number)
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return b""
            self._file = (number, descriptor)
        try:
            return os.pread(self._file[1], size, offset)
        except OSError:
            return b""


_AGAIN: Final = object()
_NO_END: Final = 1 << 64
_MOST: Final = (1 << 32) - 1
"""Seqs that one declaration of a loss can speak of (`Batch.count`)."""
_LARGER: Final = object()
_READ_BYTES: Final = 64 * limits.KIB
_LARGEST: Final = limits.MAX_RECORD_BYTES + 2 * spool.FRAME_BYTES
_CHUNK_READ: Final = 32 * limits.MIB

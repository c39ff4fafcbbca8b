"""The courier's view of one lane: its head, its tail and what is on its way."""

import contextlib
import mmap
import os
import time
from pathlib import Path
from typing import Final

from trackd_proto import limits, spool, version

from trackd import spool as files
from trackd.courier.delivery import Flight
from trackd.courier.owner import Owner
from trackd.courier.tail import Item, Position, Tail

WINDOW_BYTES: Final = 4 * limits.MIB
BATCH_BYTES: Final = 512 * limits.KIB
_FAST_S: Final = 5.0
"""Chunks that are filled in less time are followed by larger ones."""


_FINISH_S: Final = 2.0
"""Longer than finish() lasts in the ordinary case."""


class UnreadableHeadError(ValueError):
    """A head that is damaged or of a newer format."""


class SpoolLane:
    """One writer found in a session directory."""

    def __init__(self, path: Path, quota_bytes: int = 2 * limits.GIB) -> None:
        """`quota_bytes`: of its chunks, those that are only prepared included."""
        self.path = path
        self._quota_bytes = quota_bytes
        self.writer_id = bytes.fromhex(path.stem)
        self._head = _map_head(path)
        self._words = memoryview(self._head).cast("Q")
        self.target = spool.get_target(memoryview(self._head))
        # Asked before there is an owner: where that fails (a network file system that is away) nothing stays open.
        self.is_offline = self.target.mode == "offline" or offline_path(self.target, self.writer_id).exists()
        """It goes to a file in the run's directory: because that was asked for, or no daemon here can serve us."""
        alive = (path.parent / "alive", self.word(spool.ALIVE_OFFSET))
        self.owner = Owner(self.word(spool.PID), self.word(spool.START_TICKS), self.word(spool.PID_NAMESPACE), alive)
        self.tail = Tail(path.parent, self.writer_id, self.word)
        self.flight = Flight(WINDOW_BYTES, committed=self.word(spool.COMMITTED))
        self.is_resumed = False
        self.is_untold = False
        """This connection has carried nothing of it yet, so that nobody tells us how far it is."""
        self.is_exit_written = False
        self.has_files = True
        self._is_drained = False
        self._trimmed: Item | None = None
        self._freed_chunk = 0
        self._closed_at = 0.0
        self._counted = self.word(spool.DURABLE)
        """Losses up to this seq are in the word LOST."""
        self._prepared = 0
        self._wanted = 0
        """The chunk that found no space; 0: none."""
        self._prepared_at = time.monotonic()
        self.set_word(spool.COURIER_PID, os.getpid())

    def word(self, index: int) -> int:
        """One word of the head."""
        return self._words[index]

    def set_word(self, index: int, value: int) -> None:
        """Set one of the courier's words."""
        self._words[index] = value

    def is_over(self) -> bool:
        """Whether the writer will add nothing more."""
        return self.is_closed() or self.owner.is_dead()

    def is_closed(self) -> bool:
        """Whether its process said that this is all."""
        return self.word(spool.CLOSED) == spool.ENDED

    def is_sent(self) -> bool:
        """Whether everything there was has been read and is durable at the next hop."""
        return (
            self._is_drained
            and self.flight.is_empty()
            and self.tail.position.next_seq > max(self.word(spool.PUBLISHED), self.word(spool.ASSIGNED))
        )

    def next_item(self) -> Item | None:
        """What to send next, None if there is nothing or no room."""
        if trimmed := self._trimmed:
            self._trimmed = None
            return trimmed
        if not self.flight.has_room():
            return None
        is_closed, is_dead = self.is_closed(), self.owner.is_dead()
        item = self.tail.read(BATCH_BYTES, is_dead and not is_closed)
        if item is None and is_closed and self._has_open_loss(is_dead):
            item = self.tail.read(BATCH_BYTES, is_dead=True)
        self._is_drained = item is None and (is_closed or is_dead)
        return item

    def _has_open_loss(self, is_dead: bool) -> bool:
        """Whether the writer ended while records were being lost, so that it is for us to declare them.

        finish() tries for a moment, in case that there is space again.
        """
        if not self.word(spool.LOSS_COUNT):
            return False
        self._closed_at = self._closed_at or time.monotonic()
        return is_dead or time.monotonic() - self._closed_at > _FINISH_S

    def advance(self, received: int, durable: int, committed: int) -> None:
        """Watermarks of the next hop: write them back, free chunks, keep one prepared ahead."""
        known = self.flight.lost_records
        freed = self.flight.advance(received, durable, committed)
        if self.flight.lost_records > known:  # not when it was sent: that may happen again
            self.set_word(spool.LOST, self.word(spool.LOST) + self.flight.lost_records - known)
        self.set_word(spool.RECEIVED, self.flight.received)
        self.set_word(spool.DURABLE, self.flight.durable)
        self.set_word(spool.COMMITTED, self.flight.committed)
        if freed is not None:
            self._free(freed)

    def resume(self, expected: int) -> None:
        """The next hop wants `expected` next: read from there, or from the oldest record still here."""
        self.is_resumed = self.is_untold = True
        self._is_drained = False
        position = self.flight.restart(expected)
        if position is not None:
            self.tail.rewind(position)
        elif self.tail.position.next_seq != expected:
            self.tail.seek_start()
        self._skip_to(expected)
        if not self.flight.is_empty():
            self.advance(0, 0, 0)  # what was skipped may be durable already
        self._counted = max(self._counted, self.flight.durable)
        here = self.tail.position
        if here.next_seq > expected:  # the spool no longer has it
            before = Position(here.chunk, here.offset, expected, here.crc)
            self._trimmed = Item(expected, here.next_seq - expected, b"", "trimmed", before, here)

    def prepare(self) -> None:
        """Make the next chunk ready before the trainer needs it, within the quota."""
        following = self.word(spool.ROLLS)  # chunks are numbered from 0
        if self._prepared >= following or self.is_over() or not self.has_files:
            return
        try:
            current = (self.path.parent / spool.chunk_name(self.path.stem, following - 1)).stat().st_size
        except FileNotFoundError:
            return  # the lane is just being made
        now = time.monotonic()
        is_fast = now - self._prepared_at < _FAST_S
        self._prepared_at = now
        size = next((size for size in spool.CHUNK_SIZES if size > current and is_fast), current)
        held = self._held_bytes(following)
        fitting = [less for less in spool.CHUNK_SIZES if less <= size and held + less <= self._quota_bytes]
        if not fitting:  # the trainer will find out by itself, and count it, unless one is freed before
            self._prepared = self._wanted = following
            return
        size = fitting[-1]
        path = self.path.parent / spool.chunk_name(self.path.stem, following)
        try:
            os.close(files.make_chunk(path, self.writer_id, following, size, is_filled=True))
        except files.NoSpaceError:  # the trainer will find out by itself, and count it, unless one is freed before
            self._wanted = following
        self._prepared = following
        self.set_word(spool.PREPARED, following)

    def _held_bytes(self, following: int) -> int:
        held = 0
        for number in range(self._freed_chunk, following):
            with contextlib.suppress(FileNotFoundError):
                held += (self.path.parent / spool.chunk_name(self.path.stem, number)).stat().st_size
        return held

    def set_links(self, links: spool.Links) -> None:
        """Tell the trainer where its run can be seen. An odd number marks the area as being written."""
        version_now = self.word(spool.LINKS)
        self.set_word(spool.LINKS, version_now + 1)
        spool.put_area(memoryview(self._head), spool.LINKS_OFFSET, links)
        self.set_word(spool.LINKS, version_now + 2)

    def remove_files(self) -> None:
        """Everything is safe elsewhere. The maps stay: finish() may still be looking at the watermarks."""
        self.tail.close()
        self.has_files = False
        for number in self.tail.numbers():
            (self.path.parent / spool.chunk_name(self.path.stem, number)).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of everything."""
        self.tail.close()
        self.owner.close()
        self.set_word(spool.COURIER_PID, 0)
        self._words.release()
        self._head.close()  # now: it holds a descriptor, and the collector may come late

    def _free(self, position: Position) -> None:
        for number in range(self._freed_chunk, position.chunk):
            old = self.path.parent / spool.chunk_name(self.path.stem, number)
            self.prepare()  # perhaps it does not fit: then it takes the place of this one
            wanted, self._wanted = self._wanted, 0
            if wanted and wanted == self.word(spool.ROLLS) and not self.is_over():
                path = self.path.parent / spool.chunk_name(self.path.stem, wanted)
                with contextlib.suppress(FileNotFoundError, files.NoSpaceError):
                    files.recycle_chunk(old, path, self.writer_id, wanted)
            old.unlink(missing_ok=True)
        self._freed_chunk = max(self._freed_chunk, position.chunk)

    def _skip_to(self, expected: int) -> None:
        """Move on over what the next hop already has; a batch that reaches beyond it is taken record by record."""
        is_dead = self.owner.is_dead() and not self.is_closed()
        size = BATCH_BYTES
        while self.tail.position.next_seq < expected:
            before = self.tail.position
            item = self.tail.read(size, is_dead)
            if item is None:
                return
            if item.next_seq <= expected:
                self._pass(item)
            elif size > 1:
                self.tail.rewind(before)
                size = 1

    def _pass(self, item: Item) -> None:
        """The next hop has it already, perhaps not durably: once it has, its place can be freed as if we had sent it.

        Otherwise a full spool whose last record was sent on an earlier connection would stay full for ever.
        """
        reason = item.reason if item.next_seq > self._counted + 1 else ""
        self.flight.add(Item(item.first_seq, item.count, b"", reason, item.before, item.after))


def offline_path(target: spool.Target, writer_id: bytes) -> Path:
    """The file of a writer that is offline."""
    return Path(target.run_dir) / f"{writer_id.hex()}.wal"


def _map_head(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_size != spool.HEAD_BYTES:
            raise UnreadableHeadError(f"{path} is not {spool.HEAD_BYTES} bytes long")
        head = mmap.mmap(fd, spool.HEAD_BYTES)
    finally:
        os.close(fd)
    with memoryview(head) as view, view.cast("Q") as words:
        if words[spool.MAGIC] != spool.MAGIC_WORD:
            raise UnreadableHeadError(f"{path} is no spool head")
        if words[spool.FORMAT] > version.SPOOL_FORMAT:
            raise UnreadableHeadError(
                f"{path} has spool format {words[spool.FORMAT]}, this trackd reads up to {version.SPOOL_FORMAT}"
            )
    return head

"""The write-ahead log at work: one thread that takes what was handed in and decides when to append and when to sync.

One thread for all of it, so that there is no order of events to get wrong: while it syncs, batches queue up (bounded by
the caller, who counts what it has handed in) and go to the disk together, which is the group commit.

Who hands in batches learns from `Progress` what has become of them.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal import files
from trackd_daemon.wal.backlog import Backlog
from trackd_daemon.wal.quota import Quota
from trackd_daemon.wal.recovery import Recovered
from trackd_daemon.wal.state import Position
from trackd_daemon.wal.writer import SEGMENT_BYTES, LogWriter, Progress

_APPEND_BYTES: Final = 4 * MIB
_RETRY_S: Final = 1.0
_HURRY_S: Final = 0.05
_ACK_DELAY_S: Final = 1.0
"""An ack is no news for the sender: it may wait for data to be synced with, or for this long."""


class Wal:
    """The log of one directory. Everything public may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        notify: Callable[[Progress], None],
        *,
        quota: Quota | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        disk: files.Disk | None = None,
    ) -> None:
        """`notify` is called in the log's thread and must only pass the progress on."""
        self._writer = LogWriter(directory, recovered, quota=quota, segment_bytes=segment_bytes, disk=disk)
        self._notify = notify
        self._wake = threading.Condition()
        self._backlog = Backlog()
        self._acks_since = 0.0
        self._has_failed = False
        """The last turn: whatever waits, waits for `_retry_at`."""
        self._retry_at = 0.0
        """When a log that took nothing at the end of the last turn is tried again."""
        self._is_writing = False
        self._hurried = False
        self._must_sync = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="trackd-wal", daemon=True)

    @property
    def directory(self) -> Path:
        """Where the segments stand."""
        return self._writer.directory

    @property
    def segments(self) -> tuple[int, ...]:
        """Numbers of the existing segments, ascending."""
        return self._writer.segments

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return self._writer.size_bytes

    @property
    def quota_bytes(self) -> int:
        """Most that the log may take."""
        return self._writer.quota_bytes

    def start(self) -> Position:
        """Open a new segment behind what was recovered and start the thread. Raises OSError.

        Returns the end of the durable log.
        """
        end = self._writer.start()
        self._thread.start()
        return end

    def append(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """Hand in batches, in order per writer. They belong to the log from now on."""
        with self._wake:
            self._backlog.append(batches)
            self._wake.notify()

    def acknowledge(self, acks: Mapping[bytes, int]) -> None:
        """Record what is committed upstream."""
        with self._wake:
            if acks and not self._backlog.has_acks:
                self._acks_since = time.monotonic()
            self._backlog.acknowledge(acks, is_full=bool(self._writer.full_reason))
            self._wake.notify()

    def sync(self, timeout_s: float) -> bool:
        """Wait until everything handed in so far is durable; False if time ran out."""
        deadline = time.monotonic() + timeout_s
        while self._hurry():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_HURRY_S, left))  # not on the condition: others' news would make this hurry all the time
        return True

    def _hurry(self) -> bool:
        """Whether anything is not durable; then the thread looks after it now."""
        with self._wake:
            self._hurried = (
                self._backlog.has_batches or self._backlog.has_acks or self._writer.is_dirty or self._is_writing
            )
            self._wake.notify()
            return self._hurried

    def close(self, timeout_s: float = 10.0) -> None:
        """Append and sync what was handed in, then stop. Safe to call twice and without start()."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # ------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            batches, acks, is_closing = self._take()
            self._has_failed = not self._turn(batches, acks, must_sync=is_closing or self._must_sync)
            self._look_back()
            self._tell()
            self._is_writing = False
            if is_closing and (not self._backlog.has_batches or self._writer.full_reason):
                break
        with suppress(Exception):  # a full disk: the next start finds its way without a seal
            self._writer.end()
        self._writer.close()

    def _turn(self, batches: list[ingest_pb2.Batch], acks: dict[bytes, int], *, must_sync: bool) -> bool:
        """Append these, and sync if it is time; False if the disk did not let it."""
        try:
            self._write(batches, acks)
            if self._writer.is_dirty and (must_sync or self._writer.sync_delay_s() <= 0):
                self._writer.sync()
        except Exception as error:  # whatever it is: without this thread nothing would become durable any more
            self._writer.back_off(error)
            return False
        return True

    def _look_back(self) -> None:
        """Decide when a log that takes nothing is tried again: not sooner because of news."""
        with self._wake:
            if self._writer.full_reason:
                self._retry_at = time.monotonic() + _RETRY_S
                self._drop_committed(is_full=True)

    def _drop_committed(self, *, is_full: bool) -> None:
        """What was committed while the log seemed to have room."""
        self._backlog.acknowledge({}, is_full=is_full)

    def _take(self) -> tuple[list[ingest_pb2.Batch], dict[bytes, int], bool]:
        """Wait for work; the batches that fit into one append, and all acks."""
        with self._wake:
            while not (self._closing or self._hurried or (self._backlog.has_batches and not self._writer.full_reason)):
                delay = self._delay()
                if (delay is not None and delay <= 0) or not self._wake.wait(delay):
                    break
            is_full = bool(self._backlog.has_batches or self._writer.full_reason) and self._writer.is_full()
            self._drop_committed(is_full=is_full)
            batches, acks = self._backlog.take(_APPEND_BYTES, is_full=is_full)
            self._is_writing = True
            self._must_sync, self._hurried = self._hurried, False
            return batches, acks, self._closing

    def _delay(self) -> float | None:
        """Seconds until there is something to do without new batches; None: never."""
        until_retry = self._retry_at - time.monotonic()
        if self._has_failed:
            return until_retry
        delays = []
        if self._writer.is_dirty:
            delays.append(self._writer.sync_delay_s())
        if self._backlog.has_acks:
            delays.append(self._acks_since + _ACK_DELAY_S - time.monotonic())
        if self._writer.full_reason:
            delays.append(until_retry)
        return min(delays, default=None)

    def _write(self, batches: list[ingest_pb2.Batch], acks: dict[bytes, int]) -> None:
        try:
            self._writer.write(batches, acks)
        except Exception:
            with self._wake:
                self._backlog.give_back(batches, acks)
            raise

    def _tell(self) -> None:
        progress = self._writer.take_progress()
        with self._wake:
            progress.taken_bytes += self._backlog.take_dropped()
        self._notify(progress)

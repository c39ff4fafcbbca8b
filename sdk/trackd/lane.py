"""A lane: one writer's stream of records into its spool. The hot path of the whole program is `Lane.row`.

On the caller's thread: encode, CRC, two copies into mapped memory, three stores. No system call, no lock held across
I/O (mapping the next chunk, once in megabytes, is the exception, and counted).

Interrupts: the mutable state of a lane is one tuple, replaced by one store after payload and frame header are in place.
An exception at any bytecode before it leaves the old state, whose next record overwrites the unfinished one; after it
the record is in, and the published offset follows with the next record or when the process is gone.

Re-entrancy: a call that finds the lock owned by its own thread (signal handler, finalizer, logging hook) writes to
a second lane with its own spool and writer id. Fork: a page that the kernel wipes in children is looked at first.
"""

import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from trackd_proto import limits, records, spool
from trackd_proto.checksum import crc32

from trackd import chunks, forking, messages, rows, values
from trackd import spool as files

_to_row = values.to_row
_monotonic_ns = time.monotonic_ns
_ANCHOR_NS: Final = time.time_ns() - time.monotonic_ns()
"""One (wall, monotonic) anchor per process: a step of the wall clock never folds a chart."""

_ROW: Final = records.ROW
_ORDINAL: Final = records.ROW_ORDINAL
_PUBLISHED: Final = spool.PUBLISHED
_FRAME_BYTES: Final = spool.FRAME_BYTES
_pack_frame = struct.Struct("=IIIIQ").pack_into  # native order: one memcpy per field
_CRC_SLICE: Final = spool.CRC_SLICE
_FULL_RETRY_S: Final = 0.25
"""A look takes 50 µs: so seldom that 99 of 100 calls at a thousand a second do not pay for one."""
_LOSING: Final = 0
"""As the end of the room in a chunk: records are being dropped for want of space, and their loss is still open."""
_ENDED: Final = -1
"""As the same: the lane is closed. Every call goes to `_put`, which looks."""


class Place(Protocol):
    """What a lane's directory needs, and who serves it."""

    def prepare(self) -> None:
        """Make sure that the directory is there. Raises OSError."""

    def launch_courier(self) -> None:
        """Make sure that somebody reads it."""

    def see_to_courier(self) -> None:
        """The same, if that failed before."""


class Watermarks(NamedTuple):
    """How far a writer's records have come; seqs, each the highest of a contiguous prefix."""

    assigned: int
    received: int
    durable: int
    committed: int
    lost: int
    """Seqs declared lost."""


def now_us() -> int:
    """Microseconds since the epoch by the process's one anchor."""
    return (_ANCHOR_NS + _monotonic_ns()) // 1000


def new_writer_id() -> bytes:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then randomness."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return bytes(raw)


class Lane:
    """One writer. Made by `Session.lane`; used from any thread, from signal handlers and from forked children."""

    __slots__ = (
        "_alive",
        "_chunks",
        "_closed",
        "_directory",
        "_dropped",
        "_full_until",
        "_head",
        "_is_making_nested",
        "_lock",
        "_nested",
        "_place",
        "_quota",
        "_shapes",
        "_start",
        "_state",
        "_waiting",
        "_words",
        "is_in_memory",
        "on_refused",
        "refused",
        "target",
        "writer_id",
    )

    def __init__(
        self,
        directory: Path,
        target: spool.Target,
        start: Mapping[str, Any],
        quota_bytes: int,
        place: Place | None = None,
    ) -> None:
        self._directory = directory
        self._place = place
        self._quota = quota_bytes
        self.on_refused: Callable[[], None] | None = None
        """Called for every row after `close()`; may warn or raise."""
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._closed = False
        self._alive = self._begin(target, dict(start))

    def _begin(self, target: spool.Target, start: dict[str, Any]) -> mmap.mmap:
        """A new writer with empty files, at construction, and again in a forked child; what tells of its forks.

        That is the last thing to be set: until then other threads of a child wait instead of writing to its parent's
        files, which are still mapped.
        """
        alive = forking.guard()
        self.target = target
        self.writer_id = new_writer_id()
        self._start = start
        self._lock = threading.RLock()
        self._nested: Lane | None = None
        self._is_making_nested = False
        self.refused = 0
        self._shapes = rows.Shapes()
        self._dropped = 0
        self._full_until = 0.0
        self._chunks = chunks.Chunks(self._directory, self.writer_id, self._quota)
        self._head: mmap.mmap | bytearray
        self._head, (memory, limit) = self._first_files()
        self._words = memoryview(self._head).cast("Q")
        # (chunk, end of the room in it, offset of the next frame, last seq, next ordinal or step, rolling crc,
        # kind of automatic rows)
        self._state = (memory, limit, spool.CHUNK_HEADER.size, 0, 0, 0, _ORDINAL)
        self._note_roll(memory)
        writer = {**start.get("writer", {}), "role": target.role, "pid": os.getpid()}
        body = values.to_safe({**start, "writer": writer})
        self._write(rows.encode([records.START, now_us(), 0, body]), self._state[4], self._state[6])
        return alive

    # -- the hot path ---------------------------------------------------------------------------------------------

    def row(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Write one history row. Raises TypeError or ValueError for wrong arguments, nothing else."""
        if not self._alive[0] and not self._take_notice():
            self._waiting.append((Lane.row, (dict(data) if isinstance(data, Mapping) else data, step, commit)))
            return
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]
            self._from_inside(Lane.row, dict(data) if isinstance(data, Mapping) else data, step, commit)
            return
        try:
            keys = tuple(data)
            # A shape seen before needs no look at its keys; msgspec itself refuses values that need converting.
            shape = self._shapes.get(keys)
        except TypeError:
            raise rows.not_a_mapping(data) from None
        if shape is None:
            self._row_slow(data, keys, step, commit)
            return
        if shape.must_convert:
            data = _to_row(data)
        if step is not None:
            step = rows.checked_step(step)
        try:
            lock.acquire()  # inside: an interrupt right after it must find the release below
            memory, limit, offset, seq, x, crc, kind = self._state
            if step is None:
                at, at_kind = x, kind
                if commit is None or commit:
                    x += 1
            else:
                at, at_kind = step, _ROW
                if step >= x:  # automatic rows go on from here, at absolute steps
                    x, kind = step + 1 if commit else step, _ROW
            try:
                payload = shape.encode((at_kind, (_ANCHOR_NS + _monotonic_ns()) // 1000, at, data))
            except (TypeError, ValueError, OverflowError, RecursionError):
                payload = self._encode_converted(at_kind, at, shape, data)
            length = len(payload)
            start = offset + _FRAME_BYTES
            end = start + length
            if end > limit or length > _CRC_SLICE:
                self._put(payload, x, kind)
            else:
                check = crc32(payload, crc)
                memory[start:end] = payload
                seq += 1
                _pack_frame(memory, offset, length, check, crc, 0, seq)
                self._state = (memory, limit, (end + 7) & -8, seq, x, check, kind)
                self._words[_PUBLISHED] = seq
            shape.latest = payload
        finally:
            try:
                lock.release()
            except RuntimeError:  # interrupted before it was ours
                pass

    # -- the rest --------------------------------------------------------------------------------------------------

    def append(self, kind: int, body: Mapping[str, Any]) -> None:
        """Write a record of another kind (trackd_proto.records)."""
        if not self._alive[0] and not self._take_notice():
            self._waiting.append((Lane.append, (kind, dict(body))))
            return
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._from_inside(Lane.append, kind, dict(body))
            return
        if self._closed:
            self._refuse_late()
            return
        payload = rows.encode([kind, now_us(), 0, values.to_safe(dict(body))])
        with self._lock:
            self._put(payload, self._state[4], self._state[6])

    @property
    def step(self) -> int:
        """The step that the next row gets when none is given."""
        return self._state[4]

    @property
    def has_ordinals(self) -> bool:
        """Whether `step` is a row's number in this attempt, and no step that the caller gave or follows from one."""
        return bool(self._state[6] == _ORDINAL)

    def latest(self) -> dict[str, Any]:
        """The last value of every key that this process logged, by dotted path."""
        if not self._alive[1]:  # a forked child that has not logged: the lock may be held by a thread of its parent
            return self._shapes.latest()
        with self._lock:
            return self._shapes.latest()

    def watermarks(self) -> Watermarks:
        """How far the records of this lane have come (a second lane's are not counted in)."""
        words = self._words
        return Watermarks(
            self._state[3],
            words[spool.RECEIVED],
            words[spool.DURABLE],
            words[spool.COMMITTED],
            # Of what is on its way the courier does not know yet.
            max(words[spool.LOST], self._dropped) + (words[spool.LOSS_COUNT] if self._state[1] == _LOSING else 0),
        )

    def links(self) -> spool.Links | None:
        """Where the run can be seen, once the courier knows."""
        before = self._words[spool.LINKS]
        if before == 0 or before % 2:
            return None
        links = spool.get_links(memoryview(self._head))
        return links if self._words[spool.LINKS] == before else None

    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return bool(self._words[spool.STOP])

    def has_courier(self) -> bool:
        """Whether a courier has found this lane."""
        return bool(self._words[spool.COURIER_PID])

    def wait(self, level: str, timeout_s: float) -> bool:
        """Wait until everything written so far is "received", "durable" or "committed"; False after `timeout_s`."""
        if not self._alive[1]:
            return True  # a forked child that has not logged: what there is is its parent's
        if self._place is not None:
            self._place.see_to_courier()
        word = {"received": spool.RECEIVED, "durable": spool.DURABLE, "committed": spool.COMMITTED}[level]
        goal = self._state[3]
        deadline = time.monotonic() + timeout_s
        pause = 0.0005
        self.publish()
        while self._words[word] < goal:
            self._end_loss()
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return self._nested is None or self._nested.wait(level, max(0.0, deadline - time.monotonic()))

    def publish(self) -> None:
        """Make sure that the courier sees the last record (an interrupt can leave it unpublished)."""
        if not self._alive[1]:
            return  # in a child the parent's head is still mapped, and the parent may have come further
        with self._lock:
            if self._state[1] != _LOSING:
                self._words[_PUBLISHED] = self._state[3]

    def assume_exit_code(self, code: int) -> None:
        """Ask the courier to correct the EXIT record if the process ends with another code than this."""
        self._words[spool.ASSUMED] = 1 + (code & 0xFF)

    def keep_ending(self, state: str, exit_code: int | None) -> None:
        """Behind the EXIT record: if there was no space for it, the courier writes one once there is."""
        if self._state[1] == _LOSING:
            self._words[spool.UNSAID] = spool.pack_ending(state, exit_code)

    def close(self) -> None:
        """Nothing more will come. Later rows are counted as refused. Idempotent.

        A signal handler may call it inside a call of its own thread, which goes on afterwards and may still write its
        record: then the courier keeps the files until the next call here, or until the process is gone.
        """
        if not self._alive[1]:
            return  # a forked child that never logged has nothing of its own to close
        is_inside = self._lock._is_owned()  # type: ignore[attr-defined]
        self._closed = True
        with self._lock:
            self._shapes.forget()  # every later row takes the slow path, which looks whether the lane is closed
            memory, limit, offset, seq, x, crc, kind = self._state
            if limit != _LOSING:  # for rows of other threads that are past that look and wait for the lock
                kept = memory if self.is_in_memory else files.NO_CHUNK  # a mapping holds a descriptor
                self._state = (kept, _ENDED, offset, seq, x, crc, kind)
        if self._nested is not None:
            self._write_waiting(self._nested)
            self._nested.close()
        self.publish()
        if not is_inside:
            self._words[spool.CLOSED] = spool.ENDED
        elif not self._words[spool.CLOSED]:
            self._words[spool.CLOSED] = spool.ENDING

    def let_go(self, *, anyway: bool) -> bool:
        """Give back what an ended lane holds of the system's, once it is durable or `anyway`; whether that is done.

        Of its watermarks it keeps the last ones.
        """
        if not self._alive[1] or self._words[spool.CLOSED] != spool.ENDED:
            return False
        self._end_loss()
        if self._nested is not None and not self._nested.let_go(anyway=anyway):
            return False
        with self._lock:
            _, limit, offset, seq, x, crc, kind = self._state
            if not anyway and (limit == _LOSING or self._words[spool.DURABLE] < seq):
                return False
            self._state = (files.NO_CHUNK, _ENDED, offset, seq, x, crc, kind)
            self._head = bytearray(self._head)
            self._words = memoryview(self._head).cast("Q")
            self.is_in_memory = False
        return True

    def _refuse_late(self) -> None:
        """A record that came after the end. Not from inside another call."""
        if self._words[spool.CLOSED] == spool.ENDING:
            self.close()  # the call inside which it was closed is over
        self._refuse()

    def _refuse(self) -> None:
        with self._lock:
            self.refused += 1
            self._words[spool.REFUSED] = self.refused
        if self.on_refused is not None:
            self.on_refused()

    def _row_slow(self, data: Mapping[str, Any], keys: tuple[Any, ...], step: int | None, commit: bool | None) -> None:
        """Rows of a new shape, without values, or after the end."""
        if self._closed:
            self._refuse_late()
            return
        if step is not None:
            step = rows.checked_step(step)
        body = _converted(data)
        with self._lock:
            memory, limit, offset, seq, x, crc, kind = self._state
            if not body:
                if commit:  # log({}, commit=True) ends a row that was left open and writes nothing
                    self._state = (memory, limit, offset, seq, x + 1, crc, kind)
                return
            shape = self._shapes.learn(keys, data)
            at, at_kind = (x, kind) if step is None else (step, _ROW)
            if step is None:
                x += commit is None or commit
            elif step >= x:
                x, kind = step + bool(commit), _ROW
            shape.latest = rows.row_bytes(at_kind, now_us(), at, body)
            self._put(shape.latest, x, kind)

    def _encode_converted(self, kind: int, x: int, shape: rows.Shape, data: Mapping[str, Any]) -> bytes:
        """A row of a known shape whose values are, this time, not plain."""
        if any(hasattr(value, "item") for value in data.values()):
            shape.must_convert = True  # tensors now: convert first from here on
        return rows.row_bytes(kind, now_us(), x, _converted(data))

    def _put(self, payload: bytes, x: int, kind: int) -> None:
        """Write a record of any size with the lock held; rolls, splits or declares a loss where it must.

        `x` and `kind` are the next automatic row's.
        """
        if self._closed:  # while this call waited for the lock
            self._shapes.forget()  # one may have been learned meanwhile
            self._refuse()
            return
        if len(payload) > limits.MAX_RECORD_BYTES:
            parts = rows.split(payload)
            for part in parts[:-1]:
                self._put(part, self._state[4], self._state[6])
            payload = parts[-1]
        self._write(payload, x, kind)

    def _write(self, payload: bytes, x: int, kind: int) -> None:
        memory, limit, offset, seq, _, crc, _ = self._state
        end = offset + _FRAME_BYTES + len(payload)
        while end > limit:  # more than once for a record that needs a larger chunk than the next one
            if not self._widen(end) and not self._roll():
                self._drop(x, kind)
                return
            memory, limit, offset, seq, _, crc, _ = self._state
            end = offset + _FRAME_BYTES + len(payload)
        check = spool.crc_slices(payload, crc)
        memory[offset + _FRAME_BYTES : end] = payload
        seq += 1
        _pack_frame(memory, offset, len(payload), check, crc, 0, seq)
        self._state = (memory, limit, (end + 7) & -8, seq, x, check, kind)
        self._words[_PUBLISHED] = seq

    # -- a place without space -----------------------------------------------------------------------------------------

    def _first_files(self) -> tuple[mmap.mmap, tuple[files.Chunk, int]]:
        """Head and first chunk; in memory where there is no space for them, or no permission: training goes on."""
        self.is_in_memory = False
        try:
            if self._place is not None:
                self._place.prepare()
            head = files.create_head(self._directory, self.writer_id, self.target)
            return head, self._chunks.first()
        except OSError as error:  # a head that was made stays: a courier may have it open
            self.is_in_memory = True
            self._full_until = time.monotonic() + _FULL_RETRY_S
            messages.warn_once(
                f"cannot keep records in {self._directory} ({error.strerror or error}): the first MiB of them stays in "
                "the memory of this process, what follows is dropped and counted. Free some space there (it then goes "
                "on by itself), or set TRACKD_HOME to another disk",
                key="in memory",
            )
            head, memory = files.in_memory(spool.CHUNK_SIZES[0])
            return head, (memory, spool.CHUNK_HEADER.size)

    def _move_out(self) -> bool:
        """Whether the lane has files, by now. With the lock held; looks every `_FULL_RETRY_S`."""
        if not self.is_in_memory:
            return True
        now = time.monotonic()
        if now < self._full_until:
            return False
        self._full_until = now + _FULL_RETRY_S
        chunk, limit, offset, seq, x, crc, kind = self._state
        try:
            files.check_room(self._directory / "a chunk", len(chunk))  # the rest takes ten times longer to fail
            if self._place is not None:
                self._place.prepare()
            head, moved = files.move_out(self._directory, self.writer_id, self.target, self._head, chunk, offset)
        except OSError:
            return False
        self._head, self._words = head, memoryview(head).cast("Q")
        self._state = (moved, limit if limit <= _LOSING else offset, offset, seq, x, crc, kind)
        self.is_in_memory = False
        self._full_until = 0.0
        if self._place is not None:
            self._place.launch_courier()
        return True

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _note_roll(self, chunk: files.Chunk) -> None:
        self._words[spool.ROLLS] = chunk.number + 1
        self._words[spool.UNPREPARED] += chunk.filler is not None

    def _widen(self, end: int) -> bool:
        """Let records of this chunk end at `end`, if there is room in it and no loss that must be declared first."""
        if self.is_in_memory:
            self._move_out()
        chunk, limit, offset, seq, x, crc, kind = self._state
        room = len(chunk) - _FRAME_BYTES
        if chunk.filler is None or end > room or limit <= _LOSING:
            return False
        self._state = (chunk, min(room, chunk.filler.advance(end)), offset, seq, x, crc, kind)
        return True

    def _roll(self) -> bool:
        """Go on in the next chunk, declaring an open loss first. False: there is no space.

        An interrupt anywhere in it leaves the old state, from which the same can be done again, or the new one.
        """
        if self.is_in_memory and not self._move_out():
            return False
        chunk, limit, offset, seq, x, crc, kind = self._state
        now = time.monotonic()
        if now < self._full_until or limit == _ENDED:
            return False
        try:
            following, room = self._chunks.following(chunk.number)
        except OSError:
            self._full_until = now + _FULL_RETRY_S
            return False
        begin = spool.CHUNK_HEADER.size
        if limit == _LOSING:
            begin = self._declare_loss(following, seq, crc)
        _pack_frame(chunk, offset, spool.END, 0, 0, 0, 0)
        self._state = (following, _ENDED if self._closed else room, begin, seq, x, crc, kind)
        self._words[_PUBLISHED] = seq
        self._dropped += self._words[spool.LOSS_COUNT]
        self._words[spool.LOSS_COUNT] = 0
        self._note_roll(following)
        if self._place is not None:
            self._place.see_to_courier()
        return True

    def _end_loss(self) -> None:
        """Declare an open loss as soon as there is space again, also when no record comes that would."""
        if not self._alive[1]:
            return
        if self.is_in_memory and not self._lock._is_owned():  # type: ignore[attr-defined]
            with self._lock:
                self._move_out()
        if self._state[1] == _LOSING and not self._lock._is_owned():  # type: ignore[attr-defined]
            with self._lock:
                if self._state[1] == _LOSING:
                    self._roll()

    def _drop(self, x: int, kind: int) -> None:
        """No space: this record's seq is used and declared lost. Absolute values: an interrupt changes nothing."""
        chunk, limit, offset, seq, _, crc, _ = self._state
        if limit == _ENDED:  # a signal handler closed the lane while there was being made room
            self._refuse()
            return
        words = self._words
        if limit != _LOSING:
            # An interrupted call may have left its whole frame here, under the seq that is lost now.
            _pack_frame(chunk, offset, spool.END, 0, 0, 0, 0)
            words[spool.LOSS_FIRST] = seq + 1
        words[spool.LOSS_COUNT] = seq + 2 - words[spool.LOSS_FIRST]
        # No room from now on, for small records either: the next one must first declare this loss, in a new chunk.
        self._state = (chunk, _LOSING, offset, seq + 1, x, crc, kind)
        words[spool.ASSIGNED] = seq + 1

    def _declare_loss(self, chunk: files.Chunk, last: int, crc: int) -> int:
        """Write the open loss, which ends with seq `last`, as the first frame of a chunk; the offset behind it."""
        offset, first = spool.CHUNK_HEADER.size, self._words[spool.LOSS_FIRST]
        payload = rows.encode([last + 1 - first, "full"])
        end = offset + _FRAME_BYTES + len(payload)
        chunk[offset + _FRAME_BYTES : end] = payload
        _pack_frame(chunk, offset, len(payload), spool.loss_crc(payload, crc), crc, spool.LOSS_FLAG, first)
        return (end + 7) & -8

    # -- other writers -------------------------------------------------------------------------------------------------

    def _from_inside(self, write: Callable[..., None], *arguments: Any) -> None:
        """A call from inside a call goes to a second lane; automatic rows in it stand behind this lane's current step.

        Behind it, and not at it: the call that is under way takes that one, perhaps for a row of the same keys.

        Making that lane takes a millisecond, in which yet another handler may call: its record waits for it.
        """
        if self._closed:
            self._refuse()
            return
        self._waiting.append((write, arguments))
        if self._nested is None:
            if self._is_making_nested:
                return
            self._is_making_nested = True
            try:
                target = msgspec.structs.replace(self.target, role="nested", announce=False)
                self._nested = Lane(self._directory, target, self._child_start(), self._quota, self._place)
            finally:
                self._is_making_nested = False
        self._write_waiting(self._nested)
        self._alive[0] = 0  # the next call looks: the steps that these rows took are not for others
        if self._closed:  # by yet another handler, while that lane was being made
            self._nested.close()

    def _write_waiting(self, lane: "Lane") -> None:
        while self._waiting:
            write, arguments = self._waiting.popleft()
            lane._catch_up(self._state[4] + 1, self._state[6])
            write(lane, *arguments)

    def _catch_up(self, x: int, kind: int) -> None:
        """Let automatic rows stand at step `x` or later. Under the lock: a handler may write here meanwhile."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            return
        with self._lock:
            memory, limit, offset, seq, own, crc, _ = self._state
            self._state = (memory, limit, offset, seq, max(x, own), crc, kind)

    def _take_notice(self) -> bool:
        """The page that every call looks at first has changed: a forked child, or rows from inside a call.

        False: this is a call from inside the making of a child's own writer; its record has to wait for that.
        """
        if not self._alive[1]:
            if forking.is_inside():
                return False
            self._in_child()
        elif not self._lock._is_owned():  # type: ignore[attr-defined]
            self._follow_inner()
        return True

    def _follow_inner(self) -> None:
        """Go on behind the steps of rows from inside a call: of two rows at one step a key would show one value."""
        with self._lock:
            self._alive[0] = 1  # first: a handler from here on asks for another look
            memory, limit, offset, seq, x, crc, kind = self._state
            inner = self._nested
            while inner is not None:
                if inner._state[6] == kind:
                    x = max(x, inner._state[4])
                inner = inner._nested
            self._state = (memory, limit, offset, seq, x, crc, kind)

    def _child_start(self) -> dict[str, Any]:
        keep = ("project", "run_id", "entity", "attempt", "attempt_start_us", "created_us", "sdk", "python", "user")
        start = {key: self._start[key] for key in keep if key in self._start}
        start["writer"] = {**self._start.get("writer", {}), "parent": self.writer_id.hex()}
        return start

    def _in_child(self) -> None:
        """First use in a forked child: the inherited maps are the parent's; begin a writer of our own."""
        with forking.lock():
            if self._alive[1]:
                return
            self._waiting = deque()  # what is in it is the parent's
            target = msgspec.structs.replace(self.target, role="fork", announce=False)
            self._alive = self._begin(target, self._child_start())
            if self._place is not None:
                self._place.launch_courier()
        while self._waiting:
            write, arguments = self._waiting.popleft()
            write(self, *arguments)


def _converted(data: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose values are plain. Raises TypeError or ValueError."""
    if not isinstance(data, Mapping):
        raise rows.not_a_mapping(data)
    row = values.to_row(data)
    if len(row) > 1000 and values.leaves(row) > limits.MAX_LEAVES:
        raise ValueError(
            f"log() was given more than {limits.MAX_LEAVES:,} values in one row: log them in several calls"
        )
    return row

"""Spool format: how a training process leaves its records in kernel-owned memory.

A *session* is one training process: a directory below `Instance.spool`. Each writer in it has a head and chunks::

    <session>/session.json                    SessionInfo: who it is and how its courier finds the daemon
    <session>/alive                           one byte per process, locked while that process lives
    <session>/courier.lock                    flock of the courier that serves it
    <session>/<writer hex>.head               HEAD_BYTES, mapped by trainer and courier at once
    <session>/<writer hex>.<chunk no>.chunk   mapped by the trainer, read by the courier

Head: u64 words in native order (index = word number), then two areas.

==== =============== ======= ===========================================================================
word name            owner   meaning
==== =============== ======= ===========================================================================
0    MAGIC           writer  b"TRKDSPL1"
1    FORMAT          writer  version.SPOOL_FORMAT
2    PUBLISHED       writer  last seq whose frame is whole; frames missing below it are damage
3    ASSIGNED        writer  last seq given to a record that found no space (0 = none ever)
4    LOSS_FIRST      writer  first seq of the open loss interval
5    LOSS_COUNT      writer  its length; 0 = none open
6    REFUSED         writer  rows logged after finish()
7    CLOSED          writer  ENDED = nothing more will come; ENDING = finished from inside a call, whose
                             record may still come: until the process is gone, or says ENDED
8    PID             writer  of the process that owns the lane
9    START_TICKS     writer  its start time, field 22 of /proc/PID/stat (0 where there is none)
10   PID_NAMESPACE   writer  inode of /proc/self/ns/pid (0 where there is none)
11   ROLLS           writer  chunks mapped
12   UNPREPARED      writer  ... of these, made by the trainer itself because none was ready
13   ALIVE_OFFSET    writer  byte of <session>/alive that the owner keeps locked (POSIX) while it lives
14   ASSUMED         writer  1 + the exit code that its EXIT record only assumes; 0 = it assumes nothing
15   UNSAID          writer  its EXIT record found no space: 1 + place in ENDINGS, and bit 8 + exit code << 16 if known
16   RECEIVED        courier highest contiguous seq the next hop has taken
17   DURABLE         courier ... that survives a power loss there
18   COMMITTED       courier ... in every store of the hub
19   STOP            courier 1 = somebody asked the run to stop
20   LINKS           courier grows when the links area changed (odd while it is written)
21   COURIER_PID     courier 0 = none is serving the session
22   LOST            courier seqs declared lost
23   PREPARED        courier number of the highest chunk made ready
==== =============== ======= ===========================================================================

Bytes TARGET_OFFSET.. : u32 length + msgpack Target. Bytes LINKS_OFFSET.. : u32 length + msgpack Links.

Chunk: 64-byte header (magic, writer id, chunk no, size), then frames, each 8-byte aligned::

    u32 length | u32 crc | u32 previous crc | u32 flags | u64 seq | payload | padding

`crc` is CRC-32 of the payload seeded with `previous`, the crc of the writer's record before: a frame checks itself,
and the last one's crc is the rolling hash over the whole stream. `flags` LOSS: the payload is msgpack
``[count, reason]``, the frame declares `count` seqs from `seq` on lost and leaves the rolling hash alone; its `crc` is
seeded with the complement of `previous`, so that a flipped flag makes no record of a loss. `length` END, all else 0:
the writer went on in the next chunk.

A frame counts when its seq is the expected one and its crc is right. A live spool is read only up to PUBLISHED;
beyond it only once the writer is dead (a record may be committed in the process and not yet published).
Chunks of one writer hold consecutive seqs; a chunk is deleted when the next hop holds all of it durably.

Behind damage reading goes on at the next whole frame. `seq` is not in the crc: there, where no expected seq vouches
for it, the frame behind it must, or its place (see `resync`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from trackd_proto import checksum, limits

HEAD_BYTES: Final = 8192
MAGIC_WORD: Final = int.from_bytes(b"TRKDSPL1", "little")

MAGIC: Final = 0
FORMAT: Final = 1
PUBLISHED: Final = 2
ASSIGNED: Final = 3
LOSS_FIRST: Final = 4
LOSS_COUNT: Final = 5
REFUSED: Final = 6
CLOSED: Final = 7
ENDED: Final = 1
ENDING: Final = 2
PID: Final = 8
START_TICKS: Final = 9
PID_NAMESPACE: Final = 10
ROLLS: Final = 11
UNPREPARED: Final = 12
ALIVE_OFFSET: Final = 13
ASSUMED: Final = 14
UNSAID: Final = 15
ENDINGS: Final = ("finished", "failed", "killed", "preempted")
RECEIVED: Final = 16
DURABLE: Final = 17
COMMITTED: Final = 18
STOP: Final = 19
LINKS: Final = 20
COURIER_PID: Final = 21
LOST: Final = 22
PREPARED: Final = 23

TARGET_OFFSET: Final = 256
LINKS_OFFSET: Final = 5376
_LENGTH: Final = struct.Struct("<I")
_MAX_LOSS_BYTES: Final = 1024
_ALL_BITS: Final = 0xFFFFFFFF
_SEQ: Final = struct.Struct("<Q")
_SEQ_OFFSET: Final = 16
_OTHER_BITS: Final = 8
"""Two writer ids differ in more bits than this; fewer are damage to one id."""

CHUNK_MAGIC: Final = b"TRKDCHK1"
CHUNK_HEADER: Final = struct.Struct("<8s16sQQ24x")
FRAME: Final = struct.Struct("<IIIIQ")
FRAME_BYTES: Final = FRAME.size
END: Final = 0xFFFFFFFF
LOSS_FLAG: Final = 1

CHUNK_SIZES: Final = (1 * limits.MIB, 4 * limits.MIB, 16 * limits.MIB)
"""A lane begins with the first and moves on when it fills them quickly."""

_Area = TypeVar("_Area", bound=msgspec.Struct)

CRC_SLICE: Final = 4096
"""CRC-32 gives up the GIL above 5 KiB, which can cost a busy trainer 5 ms: longer payloads go in slices."""


class Target(msgspec.Struct, frozen=True):
    """Where a lane's records belong and how they get there. Constant per writer."""

    mode: str
    """"online" or "offline"."""
    route: str
    """"embedded" or HOST:PORT of the upstream."""
    project: str
    run_id: str
    run_dir: str
    """Absolute RUN_DIR (the parent of `files`)."""
    role: str = "main"
    """Of the writer: "main", "nested", "fork", "courier"."""
    attempt: str = ""
    attempt_start_us: int = 0
    announce: bool = False
    """The courier prints the links to the trainer's stderr once they are known."""
    name: str = ""


class Links(msgspec.Struct, frozen=True, array_like=True):
    """Where the run can be seen. Without a hub: empty, and the message says how to get one."""

    run_url: str = ""
    project_url: str = ""
    ticket: str = ""
    """Single-use, short-lived; refreshed by the courier while the run lives."""
    message: str = ""
    is_offline: bool = False
    """What was not sent by then, and what follows, is in the run's directory; the message says why."""


class SessionInfo(msgspec.Struct, frozen=True):
    """session.json"""

    format: int
    home: str
    host_id: str
    pid: int
    created_us: int
    python: str
    start_ticks: int = 0
    pid_namespace: int = 0
    alive_offset: int = 0
    spool_quota_bytes: int = 2 * limits.GIB


class SpoolError(ValueError):
    """Spool bytes that are not what they should be."""


def put_area(head: memoryview, offset: int, value: msgspec.Struct) -> None:
    """Write a Target or Links into its area of a mapped head. Raises SpoolError if it does not fit."""
    blob = msgspec.msgpack.encode(value)
    limit = (LINKS_OFFSET if offset == TARGET_OFFSET else HEAD_BYTES) - offset - _LENGTH.size
    if len(blob) > limit:
        raise SpoolError(f"{type(value).__name__} takes {len(blob)} bytes of at most {limit}")
    head[offset + 4 : offset + 4 + len(blob)] = blob
    _LENGTH.pack_into(head, offset, len(blob))


def get_target(head: bytes | memoryview) -> Target:
    """The Target in a head. Raises SpoolError."""
    return _get(head, TARGET_OFFSET, Target)


def get_links(head: bytes | memoryview) -> Links:
    """The Links in a head. Raises SpoolError."""
    return _get(head, LINKS_OFFSET, Links)


def _get(head: bytes | memoryview, offset: int, kind: type[_Area]) -> _Area:
    (length,) = _LENGTH.unpack_from(head, offset)
    try:
        return msgspec.msgpack.decode(bytes(head[offset + 4 : offset + 4 + length]), type=kind)
    except (ValueError, RecursionError) as error:  # not only DecodeError: also text that is no UTF-8, and deep nesting
        raise SpoolError(f"the {kind.__name__} in a spool head cannot be read: {error}") from error


def pack_ending(state: str, exit_code: int | None) -> int:
    """The word UNSAID."""
    known = 0 if exit_code is None else 1 << 8 | (exit_code & 0xFF) << 16
    return 1 + ENDINGS.index(state) | known


def unpack_ending(word: int) -> tuple[str, int | None] | None:
    """State and exit code that UNSAID speaks of; None if it says nothing."""
    place = (word & 0xFF) - 1
    if not 0 <= place < len(ENDINGS):
        return None
    return ENDINGS[place], word >> 16 & 0xFF if word >> 8 & 1 else None


def chunk_name(writer_hex: str, number: int) -> str:
    """File name of a chunk."""
    return f"{writer_hex}.{number}.chunk"


def encode_chunk_header(writer_id: bytes, number: int, size: int) -> bytes:
    """The 64 bytes at the start of a chunk."""
    return CHUNK_HEADER.pack(CHUNK_MAGIC, writer_id, number, size)


def is_of_another(header: bytes | memoryview, writer_id: bytes) -> bool:
    """Whether a chunk begins with the whole header of another writer. A damaged header may be anybody's."""
    if len(header) < CHUNK_HEADER.size:
        return False
    magic, owner, _, _ = CHUNK_HEADER.unpack_from(header)
    difference = int.from_bytes(owner, "little") ^ int.from_bytes(writer_id, "little")
    return bool(magic == CHUNK_MAGIC and bin(difference).count("1") > _OTHER_BITS)


def is_misplaced(header: bytes | memoryview, writer_id: bytes, number: int) -> bool:
    """Whether this chunk is another writer's, or says that it is not chunk `number`."""
    if len(header) < CHUNK_HEADER.size:
        return False
    magic, _, found, _ = CHUNK_HEADER.unpack_from(header)
    return bool(magic == CHUNK_MAGIC and found != number) or is_of_another(header, writer_id)


def crc_slices(payload: bytes, crc: int) -> int:
    """CRC-32 of a payload of any length without giving up the GIL."""
    view = memoryview(payload)
    for start in range(0, len(view), CRC_SLICE):
        crc = checksum.crc32(view[start : start + CRC_SLICE], crc)
    return crc


@dataclass(slots=True)
class Record:
    """One whole record found in a chunk."""

    seq: int
    payload: memoryview
    crc: int


@dataclass(slots=True)
class Loss:
    """Seqs that the writer itself declared lost."""

    seq: int
    count: int
    reason: str


@dataclass(slots=True)
class Scanned:
    """What `scan` found: where it stopped and why."""

    offset: int
    """Of the first byte not consumed, relative to the chunk."""
    next_seq: int
    crc: int
    """Rolling hash so far."""
    at_end: bool
    """An END mark: go on in the next chunk."""
    damaged: bool
    """The bytes at `offset` are no frame with the expected seq."""


def scan(
    data: bytes | memoryview,
    base: int,
    last_seq: int,
    next_seq: int,
    crc: int,
    payloads: list[memoryview],
    max_bytes: int,
) -> Scanned:
    """Collect whole records from consecutive frames into `payloads`; the hot loop of the courier.

    `data` begins at offset `base` of the chunk; frames are read up to seq `last_seq`, at most about `max_bytes`
    of payload. Stops before a LOSS frame unless it comes first (see `read_loss`), at END, or at the first frame
    that is not whole, which is `damaged` (below the published seq that is real damage; beyond, the end).
    """
    view = memoryview(data)
    unpack, crc32, add = FRAME.unpack_from, checksum.crc32, payloads.append
    position, limit, size = 0, len(view), 0
    while position + FRAME_BYTES <= limit and size < max_bytes and next_seq <= last_seq:
        length, check, previous, flags, seq = unpack(view, position)
        if length == END:
            is_end = _is_end(view, position)
            return Scanned(base + position, next_seq, crc, is_end, not is_end)
        start = position + FRAME_BYTES
        end = start + length
        if length > limits.MAX_RECORD_BYTES or end > limit or seq != next_seq or flags or previous != crc:
            return Scanned(base + position, next_seq, crc, False, flags != LOSS_FLAG or seq != next_seq)
        payload = view[start:end]
        if crc32(payload, crc) != check:
            return Scanned(base + position, next_seq, crc, False, True)
        add(payload)
        crc = check
        next_seq += 1
        size += length
        position = (end + 7) & ~7
    return Scanned(base + position, next_seq, crc, False, False)


def loss_crc(payload: bytes | memoryview, previous: int) -> int:
    """The `crc` of a LOSS frame."""
    return checksum.crc32(payload, previous ^ _ALL_BITS)


def read_loss(data: bytes | memoryview, position: int, next_seq: int) -> tuple[Loss, int] | None:
    """The LOSS frame at `position` and the position behind it, or None if there is none."""
    frame = _frame_at(memoryview(data), position)
    if frame is None or frame.seq != next_seq or not frame.is_loss:
        return None
    return Loss(frame.seq, frame.count, frame.reason), frame.end


def resync(
    data: bytes | memoryview,
    position: int,
    next_seq: int,
    last_seq: int,
    skipped: int = 0,
    following: bytes = b"",
) -> int | None:
    """The next position (8-byte aligned) after damage at `position` where a whole frame begins, or None.

    The frame may carry any seq in [next_seq, last_seq + 1]; those skipped are lost. `skipped`: bytes between the damage
    and the start of `data`, where that is another chunk. `following`: the first frame's header in the next chunk.
    """
    view = memoryview(data)
    for start in range((position + 8) & ~7, len(view) - FRAME_BYTES + 1, 8):
        if not next_seq <= _SEQ.unpack_from(view, start + _SEQ_OFFSET)[0] <= last_seq + 1:
            continue
        frame = _frame_at(view, start)
        if frame is None:
            continue
        room = (skipped + start - position) // (FRAME_BYTES + 8)  # so many records could have stood between
        previous, seq = _behind(view, frame.end, following)
        if previous == frame.crc_after and seq:
            is_sure = seq == frame.seq + frame.count
        else:
            is_sure = frame.seq + frame.count > last_seq or frame.seq - next_seq <= room
        if is_sure:
            return start
    return None


def _behind(view: memoryview, position: int, following: bytes) -> tuple[int, int]:
    """(previous crc, seq) of the frame at `position`, or of the next chunk's first after an END mark; (0, 0): none."""
    if _is_end(view, position) and len(following) == FRAME_BYTES:
        _, _, previous, _, seq = FRAME.unpack(following)
        return previous, seq
    frame = _frame_at(view, position)
    return (frame.previous, frame.seq) if frame is not None else (0, 0)


@dataclass(slots=True)
class _Whole:
    """A frame whose crc is right."""

    seq: int
    previous: int
    crc_after: int
    """The rolling hash behind it."""
    end: int
    is_loss: bool = False
    count: int = 1
    reason: str = ""


def _frame_at(view: memoryview, position: int) -> _Whole | None:
    if position + FRAME_BYTES > len(view):
        return None
    length, check, previous, flags, seq = FRAME.unpack_from(view, position)
    end = position + FRAME_BYTES + length
    if seq < 1 or flags > LOSS_FLAG or end > len(view) or length > limits.MAX_RECORD_BYTES:
        return None
    payload, behind = view[position + FRAME_BYTES : end], (end + 7) & ~7
    if not flags:
        is_right = length > 0 and checksum.crc32(payload, previous) == check
        return _Whole(seq, previous, check, behind) if is_right else None
    if length > _MAX_LOSS_BYTES or loss_crc(payload, previous) != check:
        return None
    try:
        count, reason = msgspec.msgpack.decode(payload, type=tuple[int, str])
    except (ValueError, RecursionError):
        return None
    return _Whole(seq, previous, previous, behind, True, count, reason) if 0 < count <= _ALL_BITS and reason else None


def frame_seq(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """(seq, previous crc) of the frame at `position`, known to be whole."""
    _, _, previous, _, seq = FRAME.unpack_from(data, position)
    return seq, previous


def _is_end(view: memoryview, position: int) -> bool:
    """Whether an END mark stands there."""
    return position + FRAME_BYTES <= len(view) and FRAME.unpack_from(view, position) == (END, 0, 0, 0, 0)


def chunk_numbers(names: Iterator[str], writer_hex: str) -> list[int]:
    """The chunk numbers of a writer among file names, sorted."""
    found = []
    for name in names:
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == writer_hex and parts[2] == "chunk" and parts[1].isdigit():
            found.append(int(parts[1]))
    return sorted(found)

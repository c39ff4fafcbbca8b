"""Segments: the byte format of the agent's write-ahead log and of a run's offline files (`<writer>.wal`).

A segment is one 64-byte header and frames behind it. All integers are little-endian, frames start at multiples of 8.

Segment header, 64 bytes. Its layout up to `crc` is fixed for all versions, so that any reader can tell "newer" from
"damaged":

====== =========== ==========================================================================
offset field       meaning
====== =========== ==========================================================================
0      magic 8s    ``TRKDWAL1``
8      version u16 format the segment was written in
10     min_reader  u16, oldest format whose readers understand it; above ours: UnsupportedVersion
12     crc_algo u8 1 = CRC-32 (IEEE, as in zlib), of header, frame headers and payloads
13     flags u8    bit 0, MARKED: each sync is followed by a MARK frame (the agent's log; not a run's offline files)
14     reserved    u16, 0
16     salt u32    CRC-32 of (wal_uuid, segment_no as u64): stands in every frame of the segment
20     crc u32     of these 64 bytes with this field zero
24     segment_no  u64, from 1
32     base_lsn    u64, lsn of the first frame
40     wal_uuid    16 random bytes, the same in all segments of one log
56     created_ns  u64, wall clock, for people
====== =========== ==========================================================================

Frame, 32 bytes of header, payload, zeros up to the next multiple of 8:

====== =========== ==========================================================================
0      magic u32   ``0x46444B54`` ("TKDF")
4      length u32  bytes of the payload, at most MAX_PAYLOAD_BYTES
8      header_crc  u32, of these 32 bytes with this field zero: a flipped length is found before it is used
12     payload_crc u32, of the payload: damage in it costs this frame only
16     lsn u64     position in the log, strictly growing
24     type u16    DATA, ACK, CKPT, LOSS, SEAL or MARK
26     flags u16   0
28     salt u32    of the segment: a stale or copied frame never passes for one of this segment
====== =========== ==========================================================================

Payloads: DATA and LOSS are a serialized ``trackd.v1.Batch`` (LOSS with `loss_reason` set and no data). ACK and CKPT are
msgpack, see `trackd_daemon.wal.frames`. SEAL is ``u64 frames before it``; nothing follows it. MARK is empty: everything
before it was on the disk when it was written, right after a sync, itself not synced.

Recovery: where a header or a payload is bad the reader goes on at the next multiple of 8 that holds a good frame header
of this segment with a higher lsn. Behind a bad payload that is the next frame: exactly one is lost. Behind a frame
torn by a crash it is whatever was appended after it. Zeros up to the end are unused space, not damage. What the disk
cannot read is damage. What is damaged is reported with its place; the caller knows from the seqs around it which
records were there.

A torn end: in a MARKED segment without a seal, damage with no MARK behind it is what a power loss left of unsynced
frames. The segment ends there, so that of each writer the last records are missing and none in between. Damage with a
MARK behind it is damage to what was on the disk, and costs only itself.

Limits of what is assumed: a disk may tear or lose unsynced writes and flip bits; two different payloads
with one CRC-32 are not told apart. Invariant: a frame that is returned was appended, with that lsn, to this segment.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from trackd_proto import checksum, limits
from trackd_proto.version import WAL_FORMAT

HEADER_BYTES: Final = 64
FRAME_BYTES: Final = 32
ALIGNMENT: Final = 8
MAX_PAYLOAD_BYTES: Final = 2 * limits.MAX_REQUEST_BYTES

DATA: Final = 1
ACK: Final = 2
CKPT: Final = 3
LOSS: Final = 4
SEAL: Final = 5
MARK: Final = 6

MARKED: Final = 1
"""In a header's `flags`."""

MAGIC: Final = b"TRKDWAL1"
_CRC32: Final = 1
_SEGMENT: Final = struct.Struct("<8sHHBBHIIQQ16sQ")
_FRAME: Final = struct.Struct("<IIIIQHHI")
_FRAME_MAGIC: Final = 0x46444B54
_FRAME_MAGIC_BYTES: Final = struct.pack("<I", _FRAME_MAGIC)
_SEAL: Final = struct.Struct("<Q")
_NO_HEADER: Final = "no frame header"
_UNREADABLE: Final = "the disk cannot read it"
_READ_BYTES: Final = 1 * limits.MIB
_BLOCK_BYTES: Final = 4096
"""What an unreadable sector makes unreadable: a page of the file."""
_OVERLAP_BYTES: Final = FRAME_BYTES - ALIGNMENT

Read = Callable[[int, int], bytes]
"""``read(offset, size)``: these bytes of a segment, fewer only at its end and where the disk cannot read."""


class UnsupportedVersion(Exception):
    """A segment that only a newer trackd can read. Nothing is wrong with it and nothing may be changed in it."""

    def __init__(self, found: int, supported: int) -> None:
        super().__init__(f"segment needs a reader of format {found}, this trackd reads up to format {supported}")
        self.found = found
        self.supported = supported


class HeaderDamaged(ValueError):
    """The 64 bytes are no segment header."""


class Header(NamedTuple):
    """A segment's header."""

    salt: int
    segment_no: int
    base_lsn: int
    wal_uuid: bytes
    created_ns: int
    version: int = WAL_FORMAT
    flags: int = 0


class Frame(NamedTuple):
    """A good frame."""

    offset: int
    """Of its header in the segment."""
    end: int
    """Where the next frame begins."""
    type: int
    lsn: int
    payload: bytes


class Damage(NamedTuple):
    """Bytes that are no good frame: [offset, end)."""

    offset: int
    end: int
    reason: str
    lsn: int = 0
    """Of the damaged frame, if its header is good (0 otherwise)."""


def salt_of(wal_uuid: bytes, segment_no: int) -> int:
    """The salt of a segment."""
    return checksum.crc32(wal_uuid + struct.pack("<Q", segment_no))


def encode_header(wal_uuid: bytes, segment_no: int, base_lsn: int, created_ns: int, flags: int = 0) -> bytes:
    """The 64 bytes at the start of a segment. `wal_uuid` has 16 bytes."""
    salt = salt_of(wal_uuid, segment_no)

    def pack(crc: int) -> bytes:
        return _SEGMENT.pack(
            MAGIC, WAL_FORMAT, WAL_FORMAT, _CRC32, flags, 0, salt, crc, segment_no, base_lsn, wal_uuid, created_ns
        )

    return pack(checksum.crc32(pack(0)))


def decode_header(data: bytes) -> Header:
    """The header. Raises UnsupportedVersion for a newer one, HeaderDamaged for anything else that is not one."""
    if len(data) < HEADER_BYTES:
        raise HeaderDamaged(f"{len(data)} bytes are too few for a segment header")
    fields = _SEGMENT.unpack_from(data)
    magic, version, min_reader, crc_algo, flags, _reserved, salt, crc, segment_no, base_lsn, wal_uuid, created_ns = (
        fields
    )
    if magic != MAGIC:
        raise HeaderDamaged("no segment header")
    if checksum.crc32(data[:20] + b"\0\0\0\0" + data[24:HEADER_BYTES]) != crc:
        raise HeaderDamaged("segment header with a wrong checksum")
    if min_reader > WAL_FORMAT or crc_algo != _CRC32:
        raise UnsupportedVersion(max(min_reader, version), WAL_FORMAT)
    return Header(salt, segment_no, base_lsn, wal_uuid, created_ns, version, flags)


def encode_frame(frame_type: int, lsn: int, payload: bytes, salt: int) -> bytes:
    """One frame, padded to a multiple of 8 bytes. Raises ValueError over MAX_PAYLOAD_BYTES."""
    length = len(payload)
    if length > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a frame of {length} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    payload_crc = checksum.crc32(payload)
    crc = checksum.crc32(_FRAME.pack(_FRAME_MAGIC, length, 0, payload_crc, lsn, frame_type, 0, salt))
    head = _FRAME.pack(_FRAME_MAGIC, length, crc, payload_crc, lsn, frame_type, 0, salt)
    return b"".join((head, payload, bytes(-length % ALIGNMENT)))


def encode_seal(lsn: int, frames: int, salt: int) -> bytes:
    """The frame that ends a complete segment of `frames` frames."""
    return encode_frame(SEAL, lsn, _SEAL.pack(frames), salt)


def seal_offset(size: int) -> int:
    """Where the seal of a complete segment of `size` bytes stands."""
    return size - frame_size(_SEAL.size)


def frame_size(payload_bytes: int) -> int:
    """Bytes that a frame with such a payload takes."""
    return FRAME_BYTES + payload_bytes + -payload_bytes % ALIGNMENT


def scan(buffer: bytes, *, start: int = 0) -> Iterator[Frame | Damage]:
    """Every frame of a segment in `buffer`, and what lies damaged between them. See `scan_with`."""
    view = memoryview(buffer)
    return scan_with(lambda offset, size: bytes(view[offset : offset + size]), len(view), start=start)


def scan_with(read: Read, size: int, *, start: int = 0, salt: int | None = None) -> Iterator[Frame | Damage]:
    """Every good frame of a segment of `size` bytes, and the damage between them, in order, in bounded memory.

    From `start` 0 the segment's header is checked first (UnsupportedVersion is raised, a damaged header is
    reported as Damage and the salt is taken from the first good frame); any other `start` is the place of a frame.
    """
    if start < HEADER_BYTES and salt is None:
        head = read(0, HEADER_BYTES)
        try:
            salt = decode_header(head).salt
        except HeaderDamaged as error:
            if not head.strip(b"\0") and size <= HEADER_BYTES:
                return
            yield Damage(0, min(HEADER_BYTES, size), str(error))
    offset, last_lsn = max(start, HEADER_BYTES), 0
    while offset < size:
        found = _frame_at(read, offset, size, salt, last_lsn)
        last_lsn = max(last_lsn, found.lsn)
        if isinstance(found, Damage):
            end = _next_header(read, offset, size, salt, last_lsn)
            if end is None:
                return
            found = found._replace(end=end)
        if isinstance(found, Frame) and salt is None:
            salt = _salt_at(read(found.offset, FRAME_BYTES))
        yield found
        offset = found.end


def read_frame(read: Read, offset: int, size: int, salt: int) -> Frame | Damage:
    """The frame at `offset` of a segment of `size` bytes."""
    return _frame_at(read, offset, size, salt, 0)


def _header_at(head: bytes, salt: int | None, last_lsn: int) -> tuple[int, int, int, int] | None:
    """(length, payload_crc, lsn, type) if these 32 bytes are a frame header of this segment after `last_lsn`."""
    if len(head) < FRAME_BYTES:
        return None
    magic, length, crc, payload_crc, lsn, frame_type, flags, frame_salt = _FRAME.unpack(head)
    if magic != _FRAME_MAGIC or length > MAX_PAYLOAD_BYTES or (salt is not None and frame_salt != salt):
        return None
    if checksum.crc32(_FRAME.pack(magic, length, 0, payload_crc, lsn, frame_type, flags, frame_salt)) != crc:
        return None
    return (length, payload_crc, lsn, frame_type) if lsn > last_lsn else None


def _salt_at(head: bytes) -> int | None:
    """What a frame header says; None if it could be read before and cannot now."""
    return int(_FRAME.unpack(head)[7]) if len(head) == FRAME_BYTES else None


def _frame_at(read: Read, offset: int, size: int, salt: int | None, last_lsn: int) -> Frame | Damage:
    head = read(offset, FRAME_BYTES)
    header = _header_at(head, salt, last_lsn)
    if header is None:
        return Damage(offset, size, _NO_HEADER if len(head) >= min(FRAME_BYTES, size - offset) else _UNREADABLE)
    length, payload_crc, lsn, frame_type = header
    payload = read(offset + FRAME_BYTES, length)
    end = min(offset + frame_size(length), size)
    if len(payload) < length:
        is_cut = offset + FRAME_BYTES + length > size
        return Damage(offset, size, "frame cut off by the end of the file" if is_cut else _UNREADABLE, lsn)
    if checksum.crc32(payload) != payload_crc:
        return Damage(offset, end, "payload with a wrong checksum", lsn)
    return Frame(offset, end, frame_type, lsn, payload)


def _next_header(read: Read, offset: int, size: int, salt: int | None, last_lsn: int) -> int | None:
    """Where the next good frame header after a damaged frame is, `size` if there is none, None if only zeros follow."""
    has_content = False
    for position, window in _windows(read, offset, size):
        at = window.find(_FRAME_MAGIC_BYTES)
        while at >= 0:
            if at % ALIGNMENT == 0 and _header_at(window[at : at + FRAME_BYTES], salt, last_lsn) is not None:
                return position + at
            at = window.find(_FRAME_MAGIC_BYTES, at + 1)
        has_content = has_content or not window or bool(window.strip(b"\0"))
    return size if has_content else None


def _windows(read: Read, position: int, size: int) -> Iterator[tuple[int, bytes]]:
    """[position, size) in pieces with their places, b"" where it cannot be read.

    They overlap, so that a header that straddles two of them is found whole.
    """
    while position < size:
        wanted = min(_READ_BYTES + _OVERLAP_BYTES, size - position)
        window, end = read(position, wanted), position + _READ_BYTES
        if len(window) == wanted:
            yield position, window
        else:  # some of it cannot be read; what is around that can, perhaps in smaller pieces only
            end -= end % _BLOCK_BYTES
            yield from _blocks(read, position, min(end, size), size)
        position = end


def _blocks(read: Read, position: int, end: int, size: int) -> Iterator[tuple[int, bytes]]:
    """As `_windows`, a block at a time."""
    while position < end:
        wanted = min(_BLOCK_BYTES - position % _BLOCK_BYTES, size - position)
        block = read(position, wanted)
        if len(block) == wanted:
            yield position, block + read(position + wanted, min(_OVERLAP_BYTES, size - position - wanted))
        else:
            yield position, block
            yield position + len(block), b""
        position += wanted

"""Batch data: consecutive records of one writer, each with a five-byte length prefix.

::

    CE LL LL LL LL  record   CE LL LL LL LL  record   ...

``CE`` and four big-endian bytes are msgpack's own uint32, so that the whole batch behind an array header is one
msgpack array ``[length, record, length, record, ...]`` which a reader decodes in a single call, while an agent
splits it record by record without decoding anything. Limits: `limits.MAX_RECORD_BYTES` per record,
`limits.MAX_BATCH_BYTES` per batch.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from trackd_proto import checksum, limits

PREFIX: Final = struct.Struct(">BI")
PREFIX_MARK: Final = 0xCE
_ARRAY32: Final = struct.Struct(">BI")
_decode = msgspec.msgpack.Decoder(strict=False).decode


class BatchError(ValueError):
    """Batch data that cannot be split into records."""


def prefix(length: int) -> bytes:
    """The five bytes before a record of `length` bytes."""
    return PREFIX.pack(PREFIX_MARK, length)


def join(payloads: Sequence[bytes | memoryview]) -> bytes:
    """Batch data of these encoded records."""
    pack = PREFIX.pack
    return b"".join([part for p in payloads for part in (pack(PREFIX_MARK, len(p)), p)])


def split(data: bytes | memoryview) -> Iterator[memoryview]:
    """The encoded records in order. Raises BatchError where the framing breaks."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset < end:
        if end - offset < PREFIX.size:
            raise BatchError(f"batch data ends inside a length prefix at byte {offset}")
        mark, length = PREFIX.unpack_from(view, offset)
        start = offset + PREFIX.size
        if mark != PREFIX_MARK or length > limits.MAX_RECORD_BYTES or start + length > end:
            raise BatchError(f"bad record length at byte {offset} of batch data")
        yield view[start : start + length]
        offset = start + length


def decode_all(data: bytes, count: int) -> list[list[Any]]:
    """All records of a batch, decoded at once. Raises msgspec.DecodeError if any of them is bad."""
    return decode_items(data, count)[1::2]


def decode_items(data: bytes, count: int) -> list[Any]:
    """Lengths and records of a batch in turn: [length, record, length, record, ...]. Raises msgspec.DecodeError."""
    items: list[Any] = _decode(_ARRAY32.pack(0xDD, 2 * count) + data)
    return items


def decode_one(record: bytes | memoryview) -> Any:
    """One decoded record. Raises msgspec.DecodeError."""
    return _decode(record)


def chain(data: bytes | memoryview, crc: int) -> int:
    """The writer's rolling hash after this batch: CRC-32 over all its records' bytes so far, without prefixes."""
    for record in split(data):
        crc = checksum.crc32(record, crc)
    return crc

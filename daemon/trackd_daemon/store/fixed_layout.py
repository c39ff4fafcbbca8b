"""Runs of rows with the same bytes but for their numbers, read as one matrix. Pure.

A training loop logs the same keys again and again. As long as all values are floats and the step takes the same number
of bytes, every record of such a run has the same length and the same bytes except at fixed places, so that numpy reads
the columns out of the batch without decoding a single record: an order of magnitude less work for the commonest case.
What does not fit is left to the general decoder.
"""

import struct
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from trackd_proto import checksum, limits, records
from trackd_proto.batch import PREFIX

MIN_RUN: Final = 16
"""Shorter runs are not worth the set-up."""
_FLOAT64: Final = 0xCB
_FLOAT_BYTES: Final = 9
_WIDTHS: Final = {
    0xCC: ">u1",
    0xCD: ">u2",
    0xCE: ">u4",
    0xCF: ">u8",
    0xD0: ">i1",
    0xD1: ">i2",
    0xD2: ">i4",
    0xD3: ">i8",
}
_UNSIGNED: Final = ("", ">u1", ">u2", ">u4", ">u8")
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows of one shape."""

    kind: int
    keys: tuple[str, ...]
    time_us: NDArray[np.int64]
    x: NDArray[np.int64]
    values: NDArray[np.float64]
    """One row per key."""
    size: int
    """Bytes of batch data, prefixes included."""
    crc32: int
    """Rolling hash after the run."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the numbers of a record stand."""

    kind: int
    keys: tuple[str, ...]
    size: int
    time_at: int
    x_at: int
    x_type: str
    """Of the bytes behind the marker; "" where the marker itself is the number (0 to 127)."""
    floats: NDArray[np.intp]
    """The places of all bytes of all values."""
    fixed: NDArray[np.intp]
    """The places that are the same in every record of the run."""


def read_run(data: bytes, start: int, crc32: int) -> Run | None:
    """The run that begins at `start` of a batch's data, None if there is none worth it. Never raises for bad bytes."""
    layout = _layout(data, start)
    if layout is None:
        return None
    most = (len(data) - start) // layout.size
    if most < MIN_RUN:
        return None
    matrix = np.frombuffer(data, dtype=np.uint8, count=most * layout.size, offset=start).reshape(most, layout.size)
    same = (np.take(matrix, layout.fixed, axis=1) == matrix[0, layout.fixed]).all(axis=1)
    if not layout.x_type:
        same &= matrix[:, layout.x_at] < 0x80
    length = most if same.all() else int(np.argmin(same))
    if length < MIN_RUN:
        return None
    matrix = matrix[:length]
    time_us = _numbers(matrix, layout.time_at, ">u8")
    x = _numbers(matrix, layout.x_at + 1, layout.x_type) if layout.x_type else matrix[:, layout.x_at].astype(np.int64)
    if int(time_us.min()) < 0 or (layout.x_type in _UNSIGNED and int(x.min()) < 0):
        return None  # beyond 63 bits
    if max(int(time_us.max()), int(x.max()), -int(x.min())) > limits.MAX_STEP:
        return None
    values = np.take(matrix, layout.floats, axis=1).view(">f8").astype(np.float64).T
    payloads = np.ascontiguousarray(matrix[:, PREFIX.size :])
    return Run(
        layout.kind, layout.keys, time_us, x, values, length * layout.size, checksum.crc32(payloads.tobytes(), crc32)
    )


def _numbers(matrix: NDArray[np.uint8], at: int, kind: str) -> NDArray[np.int64]:
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(matrix[:, at : at + width]).view(kind)[:, 0].astype(np.int64)


def _layout(data: bytes, start: int) -> _Layout | None:
    """The layout of the record at `start`, None if it is no row of floats."""
    try:
        _, length = PREFIX.unpack_from(data, start)
        record = data[start + PREFIX.size : start + PREFIX.size + length]
        if len(record) != length or record[0] != 0x94 or record[1] not in (records.ROW, records.ROW_ORDINAL):
            return None
        if record[2] != 0xCF:
            return None  # a time before 1970 or in the first hour after it
        x_at = 11
        x_type = _WIDTHS.get(record[x_at], "")
        if not x_type and record[x_at] >= 0x80:
            return None
        body_at = x_at + 1 + (np.dtype(x_type).itemsize if x_type else 0)
        body = _decode(record[body_at:])
        keys = tuple(body)
        if not keys or any(type(k) is not str for k in keys) or any(type(v) is not float for v in body.values()):
            return None
        floats = _float_places(record, body_at, keys)
    except (struct.error, IndexError, msgspec.DecodeError, AttributeError, TypeError):
        return None
    if floats is None:
        return None
    shift = PREFIX.size
    moving = np.zeros(length + shift, dtype=bool)
    moving[shift + 3 : shift + 11] = True
    first, last = (x_at + 1, body_at) if x_type else (x_at, x_at + 1)
    moving[shift + first : shift + last] = True
    places = (np.array(floats)[:, None] + np.arange(8)).ravel() + shift
    moving[places] = True
    return _Layout(
        kind=record[1], keys=keys, size=length + shift, time_at=shift + 3, x_at=shift + x_at, x_type=x_type,
        floats=places, fixed=np.flatnonzero(~moving),
    )  # fmt: skip


def _float_places(record: bytes, body_at: int, keys: tuple[str, ...]) -> list[int] | None:
    """Where the eight bytes of each value begin, by walking the map; None if it is not what it should be."""
    at = body_at + (1 if record[body_at] < 0x90 else 3 if record[body_at] == 0xDE else 5)
    places = []
    for key in keys:
        mark, size = record[at], len(key.encode())
        at += (1 if mark < 0xC0 else 2 if mark == 0xD9 else 3 if mark == 0xDA else 5) + size
        if record[at] != _FLOAT64:
            return None
        places.append(at + 1)
        at += _FLOAT_BYTES
    return places if at == len(record) else None

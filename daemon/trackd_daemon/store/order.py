"""The order key: which of two records of a run is the later one, whatever order they arrived in. Pure.

(attempt start, time, writer id, seq) as 40 bytes that compare like the tuple, so that a database can compare them too::

    u64 attempt_start_us + 2^63 | u64 time_us + 2^63 | 16 bytes writer_id | u64 seq      (big-endian)
"""

import struct
from typing import Final

_ORDER: Final = struct.Struct(">QQ16sQ")
_BIAS: Final = 2**63
_LOW, _HIGH = -_BIAS, _BIAS - 1
EDIT_WRITER: Final = b"\xff" * 16
"""Stands for a person who edits at the hub: later than any writer at the same microsecond."""


def order_key(attempt_start_us: int, time_us: int, writer_id: bytes, seq: int) -> bytes:
    """40 bytes; the later record has the greater key."""
    start = min(max(attempt_start_us, _LOW), _HIGH) + _BIAS
    return _ORDER.pack(start, min(max(time_us, _LOW), _HIGH) + _BIAS, writer_id, seq)


def weak_key(order: bytes) -> bytes:
    """For what only counts while nothing else was said: below every other key, the earlier above the later."""
    return bytes(1) + bytes(255 - byte for byte in order)


def inherited_key(order: bytes) -> bytes:
    """For what a fork has of its parent: below every key of its own, above those of the parent's own parent."""
    return b"\x01" + order


def edit_key(now_us: int, number: int) -> bytes:
    """A person's edit: beats what every attempt begun before it says."""
    return order_key(now_us, now_us, EDIT_WRITER, number)

"""Payloads of the control frames in the write-ahead log. Pure.

ACK is a msgpack array of ``[writer_id, seq]``: everything up to seq is committed upstream.

CKPT is a msgpack array of `Checkpoint` arrays, one per writer that the log still speaks of, and the first frame of
every segment: the state of all writers before the segment's own frames. Therefore the segments before the last one need
not be read at start, and what they said about acks survives their removal. Where there are more writers than go into
one frame, several follow each other: one of exactly PART_ROWS rows goes on in the next.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from trackd_proto import segment

PART_ROWS: Final = 4096
"""Of a checkpoint in several frames, in all but the last: names have at most 128 bytes, so that they always fit."""


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """One writer in a CKPT frame."""

    writer_id: bytes
    received: int
    """Highest contiguous seq in the log."""
    acked: int
    """Highest seq known as committed upstream."""
    route: str
    project: str
    run_id: str
    active_us: int
    """When its last batch came, microseconds since the epoch."""


_encoder = msgspec.msgpack.Encoder()
_acks = msgspec.msgpack.Decoder(list[tuple[bytes, int]])
_checkpoints = msgspec.msgpack.Decoder(list[Checkpoint])


def encode_acks(acks: Mapping[bytes, int]) -> bytes:
    """The payload of an ACK frame."""
    return _encoder.encode(list(acks.items()))


def decode_acks(payload: bytes) -> list[tuple[bytes, int]]:
    """(writer_id, seq) of an ACK frame. Raises msgspec.DecodeError."""
    return _acks.decode(payload)


def encode_checkpoints(rows: Sequence[Checkpoint]) -> bytes:
    """The payload of a CKPT frame."""
    return _encoder.encode(rows)


def checkpoint_parts(rows: Sequence[Checkpoint]) -> list[bytes]:
    """The payloads of the CKPT frames of one segment: a single one where that is possible."""
    whole = encode_checkpoints(rows)
    if len(whole) <= segment.MAX_PAYLOAD_BYTES and len(rows) != PART_ROWS:
        return [whole]
    return [encode_checkpoints(rows[start : start + PART_ROWS]) for start in range(0, len(rows) + 1, PART_ROWS)]


def decode_checkpoints(payload: bytes) -> list[Checkpoint]:
    """The writers of a CKPT frame. Raises msgspec.DecodeError."""
    return _checkpoints.decode(payload)

"""Answers as JSON or msgpack. Pure.

JSON cannot say NaN, infinities or integers that JavaScript would round: they travel as strings ("NaN", "Infinity",
"-Infinity", "int:9007199254740993"). In msgpack all of them are themselves; only an integer beyond 64 bits is
the record format's tagged map (`trackd_proto.records.tagged_int`).
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from trackd_proto import batch
from trackd_proto.records import TAG, tagged_int

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MSGPACK: Final = "application/msgpack"

_MAX_EXACT: Final = 2**53
_MAX_U64: Final = 2**64 - 1
_MIN_I64: Final = -(2**63)
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def wants_msgpack(accept: str) -> bool:
    """Whether an Accept header asks for msgpack."""
    return MSGPACK in accept.lower()


def to_json(value: Any) -> bytes:
    """The value as JSON text."""
    return _json.encode(json_safe(value))


def to_msgpack(value: Any) -> bytes:
    """The value as msgpack."""
    try:
        return _msgpack.encode(value)
    except OverflowError:  # rare: walk only then
        return _msgpack.encode(_msgpack_safe(value))


def to_json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """One JSON object per line."""
    return _json.encode_lines([json_safe(row) for row in rows])


def to_msgpack_rows(rows: Iterable[dict[str, Any]]) -> bytes:
    """One msgpack array of the rows behind its length (see `trackd_proto.batch`), for a stream of such arrays."""
    data = to_msgpack(list(rows))
    return batch.prefix(len(data)) + data


def json_safe(value: Any) -> Any:
    """The value with everything that JSON cannot say written as a string."""
    kind = type(value)
    if kind is float:
        # x - x is 0.0 for every finite float and NaN otherwise: cheaper than a call of isfinite.
        return value if value - value == 0.0 else _special(value)
    if kind is int:
        return value if -_MAX_EXACT <= value <= _MAX_EXACT else f"int:{value}"
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        if len(value) == 1 and TAG in value:
            return _untagged(*value[TAG])
        return {k: json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in value]
    return value


def _special(value: float) -> str:
    return "Infinity" if value > 0 else "-Infinity" if value < 0 else "NaN"


def _untagged(kind: str, text: str) -> str:
    return f"int:{text}" if kind == "int" else text


def _msgpack_safe(value: Any) -> Any:
    if type(value) is int and not _MIN_I64 <= value <= _MAX_U64:
        return tagged_int(value)
    if isinstance(value, dict):
        return {k: _msgpack_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_msgpack_safe(v) for v in value]
    return value

"""Rows as records: what is known of their shapes, their encoding, and what makes them fit. No I/O."""

from collections.abc import Callable, Iterator, Mapping
from operator import index
from typing import Any, Final

import msgspec
from trackd_proto import limits, records

from trackd import values

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(strict=False).decode
_MAX_SHAPES: Final = 256
_MOST_BYTES: Final = limits.MAX_RECORD_BYTES // 2
"""Of one part of a record that is too large: room for one more key, and for what stands around."""


class Shape:
    """What is known of rows with the same keys in the same order."""

    __slots__ = ("encode", "latest", "must_convert")

    def __init__(self, must_convert: bool, encode: Callable[[Any], bytes]) -> None:
        self.must_convert = must_convert
        self.encode = encode
        self.latest = b""


class Shapes(dict[tuple[Any, ...], Shape]):
    """By their keys, and the last value of every key."""

    def __init__(self) -> None:
        super().__init__()
        self._flat: dict[str, Any] = {}

    def learn(self, keys: tuple[Any, ...], data: Mapping[str, Any]) -> Shape:
        """Remember whether rows of this shape can be encoded as they are or need converting first."""
        if len(self) >= _MAX_SHAPES:
            self.forget()
        shape = self[keys] = _new_shape(keys, data)
        return shape

    def latest(self) -> dict[str, Any]:
        """The last value of every key, by dotted path."""
        latest = dict(self._flat)
        rows = (_decode(shape.latest) for shape in self.values() if shape.latest)
        for row in sorted(rows, key=lambda row: int(row[1])):
            latest.update(flatten(row[3]))
        return latest

    def forget(self) -> None:
        """The shapes, not the values."""
        self._flat = self.latest()
        self.clear()


def _new_shape(keys: tuple[Any, ...], data: Mapping[str, Any]) -> Shape:
    if type(data) is not dict or not all(type(key) is str for key in keys):
        return Shape(True, encode)
    others = set(map(type, data.values())) - values.SCALARS
    if not others:
        return Shape(False, encode)
    # Tensors: the encoder itself asks each for its number, in two thirds of the time of converting the row first.
    item = values.own_item(others)
    return Shape(item is None, msgspec.msgpack.Encoder(enc_hook=item).encode)


def flatten(body: Mapping[str, Any], prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """Nested maps as dotted paths; a tagged value counts as a leaf, and so does what is nested too deep."""
    flat: dict[str, Any] = {}
    for key, value in body.items():
        if isinstance(value, dict) and records.TAG not in value and depth < limits.MAX_DEPTH:
            flat.update(flatten(value, f"{prefix}{key}.", depth + 1))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def not_a_mapping(data: object) -> TypeError:
    """For `log()` of something else."""
    return TypeError(f"log() expects a mapping of names to values, e.g. {{'loss': 0.1}}, not {type(data).__name__}")


def row_bytes(kind: int, time_us: int, x: int, data: Mapping[str, Any]) -> bytes:
    """The record of a row, whatever its values are."""
    try:
        return encode((kind, time_us, x, data))
    except Exception:
        return encode((kind, time_us, x, values.to_safe(data)))


def checked_step(step: Any) -> int:
    """An integer whose distance to any other step fits 64 bits. Raises TypeError or ValueError."""
    try:
        number = index(step)
    except TypeError:
        scalar = step.item() if hasattr(step, "item") else step
        if not isinstance(scalar, (int, float)) or scalar != scalar // 1:
            raise TypeError(f"log(step=...) expects an integer, not {type(step).__name__} {step!r}") from None
        number = int(scalar)
    if not -limits.MAX_STEP <= number <= limits.MAX_STEP:
        raise ValueError(f"log(step={number}) is outside the range of steps, ±{limits.MAX_STEP}")
    return number


def split(payload: bytes) -> list[bytes]:
    """A record that is too large as several that add up to the same; a single value that is too large is cut."""
    kind, time_us, x, body = _decode(payload)
    if kind == records.SUMMARY:
        parts = _summary_parts(body)
    else:
        parts = _parts(body, by_path=kind in (records.ROW, records.ROW_ORDINAL))
    return [encode((kind, time_us, x, part)) for part in parts]


def _summary_parts(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In the order of their paths, in which the store applies what one record says: `a` before `a.b`."""
    put = body.get("set") or {}
    gone = set(body.get("del") or ()).difference(put)
    parts: list[dict[str, Any]] = []
    for part in _parts({path: put.get(path) for path in sorted([*put, *gone])}, by_path=False):
        parts.append({"set": {path: value for path, value in part.items() if path not in gone}})
        if removed := [path for path in part if path in gone]:
            parts[-1]["del"] = removed
    return parts


def _parts(body: Mapping[str, Any], *, by_path: bool) -> list[dict[str, Any]]:
    """`by_path`: a map inside is not one value but as many as it holds."""
    parts: list[dict[str, Any]] = [{}]
    size = 0
    for key, value, length in _fitting(body, by_path):
        if (size + length > _MOST_BYTES and parts[-1]) or key in parts[-1]:
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += length
    return parts


def _fitting(body: Mapping[str, Any], by_path: bool) -> Iterator[tuple[str, Any, int]]:
    """Keys with values that fit into a record, and the bytes of both; the parts of a map have its key each."""
    for key, value in body.items():
        name, length = len(encode(key)), len(encode(value))
        if length <= _MOST_BYTES:
            yield key, value, name + length
        elif by_path and isinstance(value, dict) and records.TAG not in value:
            for part in _parts(value, by_path=True):
                yield key, part, name + len(encode(part))
        else:
            cut = records.tagged_repr(f"{str(value)[:4096]}… ({length:,} bytes, cut: larger than a record)")
            yield key, cut, name + len(encode(cut))

"""From the bytes of a batch to columns. Pure.

Rows with the same keys are gathered into blocks of equal shape and transposed to numpy columns, one block per kind of
value, so that the price of a point is a few dozen nanoseconds of list work and not a Python object walk.
A record that cannot be decoded or has the wrong shape is set aside with its bytes; its neighbours are not affected.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from trackd_proto import batch as framing
from trackd_proto import checksum, limits, records

from trackd_daemon.store import fixed_layout

FLOATS: Final = "f"
INTS: Final = "i"
OTHERS: Final = "o"

_ROW_KINDS: Final = (records.ROW, records.ROW_ORDINAL, records.SYSTEM)
_MISSES: Final = 4
"""Records in a row that begin no run before the rest of a batch is decoded in the general way."""
_I64_MIN, _I64_MAX = -(2**63), 2**63 - 1
_MOST_STEP: Final = limits.MAX_STEP
MOST_DEPTH: Final = 2 * limits.MAX_DEPTH
"""Nesting of a body, whoever wrote it: what is read by recursion must not be deeper than the stack."""
encode_value = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one writer that have the same keys with the same kind of values."""

    kind: int
    """records.ROW, ROW_ORDINAL or SYSTEM."""
    keys: tuple[str, ...]
    column: str
    """FLOATS, INTS or OTHERS."""
    seq: NDArray[np.int64]
    step: NDArray[np.int64]
    """Step, ordinal, or for SYSTEM the time in microseconds; shape (rows,)."""
    time_us: NDArray[np.int64]
    values: NDArray[Any]
    """Shape (keys, rows): float64, int64, or objects (msgpack bytes)."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A record that is not a row."""

    seq: int
    kind: int
    time_us: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Raw:
    """A record kept as it came: undecodable, misshapen, or with something in it that this version does not know."""

    seq: int
    reason: str
    data: bytes
    count: int = 1
    """Seqs that it covers: more than one only where a batch could not even be split."""
    is_loss: bool = True
    """Its content could not be read (what a newer version added is merely kept)."""


@dataclass(slots=True)
class Rows:
    """How many rows there are of a kind, and their range, empty rows included."""

    kind: int
    count: int
    min_step: int
    max_step: int
    min_time: int
    max_time: int


@dataclass(slots=True)
class Decoded:
    """Everything in one batch."""

    first_seq: int
    count: int
    blocks: list[Block] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    raws: list[Raw] = field(default_factory=list)
    crc32: int = 0
    min_time: int | None = None
    max_time: int | None = None


class ShapeError(ValueError):
    """A record that is msgpack but not a record."""


def decode(data: bytes, first_seq: int, count: int, *, crc32: int) -> Decoded:
    """Columns and facts of a batch; `crc32` is the writer's rolling hash before it. Never raises for bad bytes."""
    result = Decoded(first_seq, count, crc32=crc32)
    try:
        at, singles, seqs = _take_runs(result, data)
        taken = sum(rows.count for rows in result.rows) + len(singles)
        rest = data[at:]
        items = framing.decode_items(rest, count - taken)
        result.crc32 = _chain(rest, items[0::2], result.crc32)
        _gather(result, singles + items[1::2], [*seqs, *range(first_seq + taken, first_seq + count)])
    except Exception:  # whatever is wrong with one record must not touch the others
        _one_by_one(result, data, crc32)
    return result


def _take_runs(result: Decoded, data: bytes) -> tuple[int, list[Any], list[int]]:
    """Take runs of equal rows from the front of a batch, up to its end or where runs do not seem worth looking for.

    Returns where it stopped, and the single records between the runs with their seqs.
    """
    at, taken, misses = 0, 0, 0 if result.count >= fixed_layout.MIN_RUN else _MISSES
    singles: list[Any] = []
    seqs: list[int] = []
    while at < len(data) and misses < _MISSES and taken < result.count:
        seq = result.first_seq + taken
        if run := fixed_layout.read_run(data, at, result.crc32):
            rows = len(run.time_us)
            low, high = int(run.time_us.min()), int(run.time_us.max())
            _widen(result, low, high)
            result.rows.append(Rows(run.kind, rows, int(run.x.min()), int(run.x.max()), low, high))
            block_seqs = np.arange(seq, seq + rows, dtype=np.int64)
            result.blocks.append(Block(run.kind, run.keys, FLOATS, block_seqs, run.x, run.time_us, run.values))
            at, taken, misses, result.crc32 = at + run.size, taken + rows, 0, run.crc32
            continue
        record = next(framing.split(memoryview(data)[at:]))
        singles.append(framing.decode_one(record))
        seqs.append(seq)
        result.crc32 = checksum.crc32(record, result.crc32)
        at, taken, misses = at + framing.PREFIX.size + len(record), taken + 1, misses + 1
    return at, singles, seqs


def _chain(data: bytes, lengths: list[int], crc32: int) -> int:
    """The rolling hash after records of these lengths, which must make up the whole of `data`."""
    view = memoryview(data)
    at = 0
    for length in lengths:
        at += framing.PREFIX.size
        crc32 = checksum.crc32(view[at : at + length], crc32)
        at += length
    if at != len(view):
        raise framing.BatchError("the lengths of the records do not add up to the batch")
    return crc32


def part_of(data: bytes, start: int, stop: int) -> bytes:
    """Batch data of the records [start, stop) of `data`; `data` itself where it cannot be split."""
    try:
        return framing.join([bytes(p) for p in islice(framing.split(data), start, stop)])
    except framing.BatchError:
        return data


def _one_by_one(result: Decoded, data: bytes, crc32: int) -> None:
    """Take what is good of a batch in which something is bad."""
    for rows in (result.blocks, result.rows, result.facts, result.raws):
        rows.clear()
    result.min_time = result.max_time = None
    try:
        found = sum(1 for _ in framing.split(data))
        if found != result.count:
            raise framing.BatchError(f"a batch said to hold {result.count} records holds {found}")
    except framing.BatchError as error:
        result.raws.append(Raw(result.first_seq, f"undecodable: {error}", bytes(data), result.count))
        result.crc32 = checksum.crc32(data, crc32)
        return
    result.crc32 = framing.chain(data, crc32)
    good: list[list[Any]] = []
    seqs: list[int] = []
    for seq, payload in enumerate(framing.split(data), result.first_seq):
        try:
            record = framing.decode_one(payload)
            if is_newer(record):
                result.raws.append(Raw(seq, _what_is_new(record), bytes(payload), is_loss=False))
                if record[0] not in records.KINDS:
                    continue
                record = record[:4]
            _check(record)
            _gather(Decoded(seq, 1), [record], [seq])
        except Exception as error:
            if result.raws and result.raws[-1].seq == seq:  # of a newer version, and what we know of it is wrong
                continue
            result.raws.append(Raw(seq, f"undecodable: {error}"[:500], bytes(payload)))
            continue
        good.append(record)
        seqs.append(seq)
    _gather(result, good, seqs)


def is_newer(record: Any) -> bool:
    """Whether a newer version wrote it: a kind that is not known here, or elements behind the four."""
    return (
        isinstance(record, list)
        and len(record) > 0
        and type(record[0]) is int
        and (record[0] not in records.KINDS or len(record) > 4)
    )


def _what_is_new(record: list[Any]) -> str:
    if record[0] not in records.KINDS:
        return f"unknown kind {record[0]}"
    return f"{len(record) - 4} unknown elements"


def _check(record: Any) -> None:
    if not isinstance(record, list) or len(record) != 4:
        raise ShapeError("not an array of four")
    kind, time_us, x, body = record
    if type(kind) is not int or type(time_us) is not int or type(x) is not int or not isinstance(body, dict):
        raise ShapeError("a field of the wrong type")
    if not -_MOST_STEP <= time_us <= _MOST_STEP or not -_MOST_STEP <= x <= _MOST_STEP:
        raise ShapeError("a step or time out of range")
    check_depth(body)


def check_depth(value: Any, room: int = MOST_DEPTH) -> None:
    """Raises ShapeError if maps and lists are nested deeper than `room`."""
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return
    if room == 0:
        raise ShapeError(f"nested deeper than {MOST_DEPTH}")
    for item in value:
        if type(item) is dict or type(item) is list:
            check_depth(item, room - 1)


_Gathered = tuple[list[int], list[int], list[int], list[Any]]


def _gather(result: Decoded, entries: Iterable[list[Any]], seqs: Iterable[int]) -> None:
    groups: dict[tuple[int, tuple[Any, ...]], _Gathered] = {}
    for seq, (kind, time_us, x, body) in zip(seqs, entries, strict=False):
        if kind in _ROW_KINDS:
            name = (kind, tuple(body))
            group = groups.get(name)
            if group is None:
                group = groups[name] = ([], [], [], [])
            group[0].append(seq)
            group[1].append(time_us)
            group[2].append(x)
            group[3].extend(body.values())
        else:
            _check([kind, time_us, x, body])
            _widen(result, time_us, time_us)
            if kind not in records.KINDS:
                raise ShapeError(f"unknown kind {kind}")  # kept as it came, by who takes one record after the other
            result.facts.append(Fact(seq, kind, time_us, body))
    for (kind, keys), group in groups.items():
        _rows(result, kind, tuple(k if type(k) is str else str(k) for k in keys), group)


def _widen(result: Decoded, low: int, high: int) -> None:
    result.min_time = low if result.min_time is None else min(low, result.min_time)
    result.max_time = high if result.max_time is None else max(high, result.max_time)


def _int_column(values: list[Any]) -> NDArray[np.int64]:
    """int64 of Python ints; anything else is a bad record (numpy would silently cut floats)."""
    if set(map(type, values)) - {int}:
        raise ShapeError("a field of the wrong type")
    return np.array(values, dtype=np.int64)


def _rows(result: Decoded, kind: int, keys: tuple[str, ...], group: _Gathered) -> None:
    seqs, times, xs, flat = group
    seq, time_us = np.array(seqs, dtype=np.int64), _int_column(times)
    step = time_us if kind == records.SYSTEM else _int_column(xs)
    low, high = int(time_us.min()), int(time_us.max())
    first, last = int(step.min()), int(step.max())
    if min(low, first) < -_MOST_STEP or max(high, last) > _MOST_STEP:
        raise ShapeError("a step or time out of range")
    _widen(result, low, high)
    result.rows.append(Rows(kind, len(seqs), first, last, low, high))
    _blocks(result, kind, keys, seq, step, time_us, flat)


def _blocks(
    result: Decoded,
    kind: int,
    keys: tuple[str, ...],
    seq: NDArray[np.int64],
    step: NDArray[np.int64],
    time_us: NDArray[np.int64],
    flat: list[Any],
) -> None:
    if not keys:
        return
    types = set(map(type, flat))
    rows, width = len(seq), len(keys)
    if types == {float}:
        values = np.array(flat, dtype=np.float64).reshape(rows, width).T
        result.blocks.append(Block(kind, keys, FLOATS, seq, step, time_us, values))
    elif dict in types:
        check_depth(flat)
        _flatten(result, kind, keys, seq, step, time_us, flat)
    else:
        _by_column(result, kind, keys, seq, step, time_us, flat)


def _by_column(
    result: Decoded,
    kind: int,
    keys: tuple[str, ...],
    seq: NDArray[np.int64],
    step: NDArray[np.int64],
    time_us: NDArray[np.int64],
    flat: list[Any],
) -> None:
    """Rows of mixed values: columns of one type stay whole, a column of several is split by type."""
    width = len(keys)
    whole: dict[str, tuple[list[str], list[Any]]] = {}
    for index, key in enumerate(keys):
        column = flat[index::width]
        types = {_column_of(v) for v in column}
        if len(types) == 1:
            names, columns = whole.setdefault(types.pop(), ([], []))
            names.append(key)
            columns.append(column)
            continue
        for name in sorted(types):
            mask = [_column_of(v) == name for v in column]
            chosen = np.array(mask)
            values = _values(name, [list(compress(column, mask))])
            result.blocks.append(Block(kind, (key,), name, seq[chosen], step[chosen], time_us[chosen], values))
    for name, (names, columns) in whole.items():
        result.blocks.append(Block(kind, tuple(names), name, seq, step, time_us, _values(name, columns)))


def _column_of(value: Any) -> str:
    if type(value) is float:
        return FLOATS
    if type(value) is int and _I64_MIN <= value <= _I64_MAX:
        return INTS
    return OTHERS


def _values(column: str, columns: list[list[Any]]) -> NDArray[Any]:
    if column == FLOATS:
        return np.array(columns, dtype=np.float64)
    if column == INTS:
        return np.array(columns, dtype=np.int64)
    values = np.empty((len(columns), len(columns[0])), dtype=object)
    for index, source in enumerate(columns):
        check_depth(source)
        values[index, :] = [encode_value(v) for v in source]
    return values


def _flatten(
    result: Decoded,
    kind: int,
    keys: tuple[str, ...],
    seq: NDArray[np.int64],
    step: NDArray[np.int64],
    time_us: NDArray[np.int64],
    flat: list[Any],
) -> None:
    """Rows with maps in them: each path becomes a key of its own, and rows are grouped again."""
    width = len(keys)
    groups: dict[tuple[str, ...], tuple[list[int], list[Any]]] = {}
    scalars: dict[tuple[str, ...], tuple[list[int], list[Any]]] = {}
    for row in range(len(seq)):
        items = dict(paths(zip(keys, flat[row * width : (row + 1) * width], strict=True)))
        plain = {k: v for k, v in items.items() if type(v) is not dict}
        tagged = {k: v for k, v in items.items() if type(v) is dict}
        for target, part in ((groups, plain), (scalars, tagged)):
            if part:
                rows, values = target.setdefault(tuple(part), ([], []))
                rows.append(row)
                values.extend(part.values())
    for names, (rows, values) in groups.items():
        _blocks(result, kind, names, seq[rows], step[rows], time_us[rows], values)
    for names, (rows, values) in scalars.items():
        _by_column(result, kind, names, seq[rows], step[rows], time_us[rows], values)


def paths(items: Iterable[tuple[Any, Any]], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted paths of nested maps; tagged values and empty maps are leaves."""
    for key, value in items:
        path = f"{prefix}{key}"
        if type(value) is dict and value and not is_tagged(value):
            yield from paths(value.items(), f"{path}.")
        else:
            yield path, value


def is_tagged(value: dict[Any, Any]) -> bool:
    """What msgpack itself cannot say (records.TAG)."""
    return len(value) == 1 and records.TAG in value


def plain(value: Any) -> Any:
    """A stored value as Python and JSON know it: tagged integers become int, tagged reprs their text, bytes hex."""
    if type(value) is dict:
        if is_tagged(value):
            tag: Sequence[Any] = value[records.TAG]
            try:
                return int(tag[1]) if tag[0] == "int" else str(tag[1])
            except (IndexError, TypeError, ValueError, KeyError):
                return str(tag)
        return {str(k): plain(v) for k, v in value.items()}
    if type(value) is list:
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.msgpack.Ext):
        return repr(value)
    return value


def decode_value(data: bytes) -> Any:
    """The value that `encode_value` wrote, as Python and JSON know it."""
    return plain(framing.decode_one(data))

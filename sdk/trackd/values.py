"""Turns what a script logs into what a record can hold. Never imports numpy or torch: it asks the values.

A value of a type that is stored as it is passes untouched. Scalars of numpy, torch, jax and tensorflow become
Python numbers; small arrays and sequences become lists; what cannot be stored becomes its repr, with one warning per
type.
"""

import datetime
import enum
import math
import types
import warnings
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

from trackd_proto import limits, records

SCALARS: Final = frozenset({float, int, bool, str, type(None)})
"""Types that are stored as they are (an int beyond 64 bits and a str with lone surrogates excepted)."""

MAX_LIST: Final = 1024
"""Elements of an array that are kept as a list; a larger one is stored as its repr."""

_I64_MIN: Final = -(2**63)
_U64_MAX: Final = 2**64 - 1

Converter = Callable[[Any], Any]


class UnstorableWarning(UserWarning):
    """A logged value was replaced by its repr."""


def _same(value: Any) -> Any:
    return value


class _Converters(dict[type, Converter]):
    """type -> how its values are stored; unknown types are looked at once."""

    def __missing__(self, kind: type) -> Converter:
        converter = _choose(kind)
        self[kind] = converter
        return converter


def to_row(data: Mapping[Any, Any]) -> dict[str, Any]:
    """A copy of `data` with str keys and values that msgpack can hold (but see `to_safe`), of bounded depth."""
    table = _QUICK
    try:
        return {k if type(k) is str else str(k): table[type(v)](v) for k, v in data.items()}
    except Exception:  # something in it is an array of several elements: look at each value
        careful = CONVERTERS
        return {k if type(k) is str else str(k): careful[type(v)](v) for k, v in data.items()}


def to_safe(value: Any) -> Any:
    """The same of any value, with nothing left that msgpack refuses: big integers tagged, lone surrogates escaped."""
    convert = CONVERTERS[type(value)]
    return _safe(convert(value, 0) if convert in _NESTING else convert(value))


def _safe(value: Any) -> Any:
    """Of a converted value."""
    if type(value) is int:
        return value if _I64_MIN <= value <= _U64_MAX else records.tagged_int(value)
    if type(value) is str:
        return safe_text(value)
    if type(value) is dict:
        return {safe_text(k if type(k) is str else str(k)): _safe(v) for k, v in value.items()}
    if type(value) is list:
        return [_safe(v) for v in value]
    return value


def safe_text(text: str) -> str:
    r"""`text` as valid UTF-8: a lone surrogate becomes its escape, e.g. ``\udc80``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return str(text)


def leaves(value: Any, limit: int = limits.MAX_LEAVES) -> int:
    """How many scalars a converted value holds; stops counting beyond `limit`."""
    count, stack = 0, [value]
    while stack and count <= limit:
        item = stack.pop()
        if type(item) is dict:
            stack.extend(item.values())
        elif type(item) is list:
            stack.extend(item)
        else:
            count += 1
    return count


def _choose(kind: type) -> Converter:
    if kind in SCALARS or kind is bytearray:
        return _same
    if issubclass(kind, enum.Enum):
        return lambda v: CONVERTERS[type(v.value)](v.value)
    for base, converter in ((bool, bool), (int, int), (float, float), (str, str.__str__)):
        if issubclass(kind, base) and not _is_array_type(kind):
            return converter
    if issubclass(kind, (bytes, memoryview)):
        return lambda v: bytes(v).decode("utf-8", "backslashreplace")
    if issubclass(kind, Mapping):
        return _to_map
    if issubclass(kind, (list, tuple, Set, range)):
        return _to_list
    if issubclass(kind, (datetime.date, datetime.time)):
        return lambda v: v.isoformat()
    if hasattr(kind, "__dataclass_fields__"):
        return _from_dataclass
    return _array_converter(kind) if _is_array_type(kind) else _to_text


def _is_array_type(kind: type) -> bool:
    """A scalar, array or tensor of numpy, torch, jax, tensorflow and their like."""
    return hasattr(kind, "item") or (hasattr(kind, "numpy") and hasattr(kind, "shape"))


def _array_converter(kind: type) -> Converter:
    item = getattr(kind, "item", None)
    if item is not None and kind.__module__ == "numpy":
        for pattern, plain in _PLAIN_NUMPY.items():
            if kind.__name__.startswith(pattern):
                return plain  # float(v) takes a fifth of v.item()
    return _from_array


_PLAIN_NUMPY: Final[dict[str, Converter]] = {
    "float16": float, "float32": float, "float64": float, "bool": bool, "int": int, "uint": int,
    "longlong": int, "ulonglong": int,
}  # fmt: skip
"""Beginnings of the names of numpy's scalar types that are plain numbers."""


def _from_array(value: Any) -> Any:
    """One element: a number. A few: nested lists. Many: a description."""
    try:
        scalar = value.item()
    except Exception:  # more than one element (every library has its own error for that), or no item() at all
        return _from_elements(value)
    if type(scalar) is float or type(scalar) in SCALARS:
        return scalar
    if type(scalar) is type(value):  # numpy.longdouble is its own item()
        return float(scalar) if hasattr(scalar, "__float__") else _to_text(scalar)
    return CONVERTERS[type(scalar)](scalar)


def _from_elements(value: Any) -> Any:
    try:
        size = math.prod(value.shape)
        if size <= MAX_LIST:
            plain = value.tolist() if hasattr(value, "tolist") else value.numpy().tolist()
            return _to_list(plain) if isinstance(plain, list) else CONVERTERS[type(plain)](plain)
    except Exception:
        return _to_text(value)
    return _unstorable(value, f"{size:,} elements (log a histogram, a table or an image of it)")


def _to_list(value: Any, depth: int = 1) -> Any:
    """`depth`: maps and lists around it, the row included. What holds itself would have no end."""
    if depth >= limits.MAX_DEPTH:
        return too_deep(value)
    table = CONVERTERS
    return [c(v, depth + 1) if (c := table[type(v)]) in _NESTING else c(v) for v in value]


def _to_map(value: Any, depth: int = 1) -> Any:
    if depth >= limits.MAX_DEPTH:
        return value if _is_cut(value) else too_deep(value)
    table = CONVERTERS
    return {
        k if type(k) is str else str(k): c(v, depth + 1) if (c := table[type(v)]) in _NESTING else c(v)
        for k, v in value.items()
    }


def _from_dataclass(value: Any, depth: int = 1) -> Any:
    return _to_map({name: getattr(value, name) for name in value.__dataclass_fields__}, depth)


_NESTING: Final = frozenset({_to_list, _to_map, _from_dataclass})


def _is_cut(value: Any) -> bool:
    """Whether a value is what an earlier conversion left in the place of another."""
    said = value[records.TAG] if type(value) is dict and value.keys() == {records.TAG} else None
    return type(said) is list and [type(each) for each in said] == [str, str]


def too_deep(value: Any) -> dict[str, list[str]]:
    """What is recorded in the place of a value that is nested deeper than records are."""
    return _unstorable(value, f"nested deeper than {limits.MAX_DEPTH}")


def _to_text(value: Any) -> Any:
    return _unstorable(value, "no way to store such a value")


_warned: set[type] = set()


def _unstorable(value: Any, why: str) -> dict[str, list[str]]:
    kind = type(value)
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(
            f"trackd: a value of type {kind.__module__}.{kind.__qualname__} was stored as its repr: {why}.",
            UnstorableWarning,
            stacklevel=2,
        )
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{kind.__qualname__}: repr failed with {type(error).__name__}>"
    return records.tagged_repr(safe_text(text[:4096]))


CONVERTERS: Final = _Converters()


class _QuickConverters(dict[type, Converter]):
    """The same, but tensors by their own `item` without a look at the result: a third of the price of the careful way.

    It raises for several elements; a result that cannot be stored is found when the row is encoded.
    """

    def __missing__(self, kind: type) -> Converter:
        careful = CONVERTERS[kind]
        converter = getattr(kind, "item", careful) if careful is _from_array else careful
        self[kind] = converter
        return converter


_QUICK: Final = _QuickConverters()


def own_item(kinds: Set[type]) -> Converter | None:
    """`torch.Tensor.item` for tensors, so to speak: the method that makes a number of values of these types.

    None unless it is one method for all of them and refuses values of any other type.
    """
    found = {_QUICK[kind] for kind in kinds}
    if len(found) != 1:
        return None
    (method,) = found
    return method if type(method) is types.MethodDescriptorType and method.__name__ == "item" else None

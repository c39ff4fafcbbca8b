"""Nested maps that tell their owner what is written into them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from trackd_proto import limits


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING: Final = _Missing()
"""The value of what was deleted."""

Path = tuple[str, ...]
Changed = Callable[[Path, Any], None]


class Section(dict[str, Any]):
    """A dict inside a config or summary: ``config["model"]["lr"] = 0.1`` is recorded like a top-level write.

    Values are also attributes where no method of dict has the name. Copies and pickles are plain dicts.
    """

    __slots__ = ("_changed", "_path")

    def __init__(self, values: Mapping[Any, Any], path: Path, changed: Changed) -> None:
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_changed", changed)
        super().__init__((str(key), wrap(value, (*path, str(key)), changed)) for key, value in values.items())

    def __setitem__(self, key: Any, value: Any) -> None:
        path = (*self._path, str(key))
        super().__setitem__(str(key), wrap(value, path, self._changed))
        self._changed(path, value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(str(key))
        self._changed((*self._path, str(key)), MISSING)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {'.'.join((*self._path, name))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As dict.update, recorded."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> "Section":  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict.setdefault, recorded."""
        if str(key) not in self:
            self[key] = default
        return self[str(key)]

    def pop(self, key: Any, *default: Any) -> Any:
        """As dict.pop, recorded."""
        if default and str(key) not in self:
            return default[0]
        value = self[str(key)]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """As dict.popitem, recorded."""
        if not self:
            raise KeyError("popitem(): the section is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """As dict.clear, recorded."""
        for key in list(self):
            del self[key]

    def copy(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(plain(self))

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        import copy  # noqa: PLC0415 - rarely needed

        return copy.deepcopy(self.copy(), memo)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.copy(),)


def wrap(value: Any, path: Path, changed: Changed) -> Any:
    """A Section of a dict, anything else as it is; and what is nested deeper than records are: it may hold itself."""
    return Section(value, path, changed) if isinstance(value, dict) and len(path) < limits.MAX_DEPTH else value


def plain(value: Any, depth: int = 0) -> Any:
    """The same with plain dicts in place of Sections, as deep as records are."""
    if depth < limits.MAX_DEPTH and isinstance(value, dict):
        return {key: plain(each, depth + 1) for key, each in list(value.items())}  # other threads may write meanwhile
    if depth < limits.MAX_DEPTH and type(value) is list:
        return [plain(each, depth + 1) for each in value]
    return value

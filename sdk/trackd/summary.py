"""`run.summary`: the outputs of a run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from trackd.rows import flatten
from trackd.sections import MISSING, Section, plain

Send = Callable[[dict[str, Any]], None]
Latest = Callable[[], dict[str, Any]]


class Summary(MutableMapping[str, Any]):
    """The last value of every logged key, and what the script sets: that wins, and stays whatever is logged later.

    Nested values have dotted paths (``summary["d"]["k"]`` is ``d.k``); writing one keeps its siblings. A deleted key
    stays away until it is set again.
    """

    __slots__ = ("_before", "_deleted", "_explicit", "_latest", "_send")

    def __init__(self, send: Send, latest: Latest) -> None:
        set_ = object.__setattr__
        set_(self, "_send", send)
        set_(self, "_latest", latest)
        set_(self, "_explicit", {})
        set_(self, "_deleted", set())
        set_(self, "_before", {})

    def __getitem__(self, key: str) -> Any:
        return self._tree()[str(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._write((str(key),), value)

    def __delitem__(self, key: str) -> None:
        if str(key) not in self._tree():
            raise KeyError(key)
        self._write((str(key),), MISSING)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree())

    def __len__(self) -> int:
        return len(self._tree())

    def __getattr__(self, name: str) -> Any:
        try:
            return self._tree()[name]
        except KeyError:
            raise AttributeError(f"summary has no value {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"summary has no value {name!r}") from None

    def __repr__(self) -> str:
        return repr(self.as_dict())

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several values, in one record."""
        new = dict(*args, **kwargs)
        self._apply([((str(key),), value) for key, value in new.items()])

    def as_dict(self) -> dict[str, Any]:
        """A plain copy; nested sections are dicts."""
        return dict(plain(self._tree()))

    @property
    def explicit(self) -> tuple[dict[str, Any], set[str]]:
        """What the script set, by dotted path, and which paths it deleted."""
        return dict(self._explicit), set(self._deleted)

    def restore(self, explicit: Mapping[str, Any], deleted: set[str]) -> None:
        """Take what is recorded already (in a process that joined the run)."""
        self._explicit.update(explicit)
        self._deleted.update(deleted)

    def restore_logged(self, tree: Mapping[str, Any]) -> None:
        """Take the values of the attempts before this one; what is logged or set from now on replaces them."""
        self._before.update(flatten(tree))

    def _write(self, path: tuple[str, ...], value: Any) -> None:
        self._apply([(path, value)])

    def _apply(self, writes: list[tuple[tuple[str, ...], Any]]) -> None:
        put: dict[str, Any] = {}
        gone: dict[str, None] = {}
        # list() of a dict is one step for other threads; a loop over it is not.
        explicit, deleted = _Paths(list(self._explicit)), _Paths(list(self._deleted))
        for path, value in writes:
            dotted = ".".join(path)
            for old in explicit.take(dotted):
                self._explicit.pop(old, None)
                gone[old] = None
            if value is MISSING:
                for old in [p for p in {**self._before, **self._latest()} if _covers(dotted, p)]:
                    gone[old] = None
                gone[dotted] = None
                self._deleted.add(dotted)
                deleted.add(dotted)
                continue
            new = flatten({dotted: plain(value)})
            self._explicit.update(new)
            put.update(new)
            for each in new:
                explicit.add(each)
                self._deleted.difference_update(deleted.take(each))
        body: dict[str, Any] = {"set": put}
        if removed := [path for path in gone if path not in put]:
            body["del"] = removed
        self._send(body)

    def _tree(self) -> dict[str, Any]:
        explicit, logged = dict(self._explicit), self._latest()
        own, new, gone = _Paths(explicit), _Paths(logged), _Paths(list(self._deleted))
        before = {path: value for path, value in self._before.items() if not new.meets(path)}
        flat = {
            path: value for path, value in {**before, **logged}.items() if not gone.cover(path) and not own.meets(path)
        }
        flat.update(explicit)
        tree = _unflattened(flat)
        return {k: Section(v, (k,), self._write) if isinstance(v, dict) else v for k, v in tree.items()}


class _Paths:
    """Dotted paths, asked for those above and below another: in the time of its dots, however many there are."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: set[str] = set()
        self._above: set[str] = set()
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """One more."""
        self._paths.add(path)
        self._above.update(_above(path))

    def cover(self, path: str) -> bool:
        """Whether it is one of them, or below one."""
        return path in self._paths or any(each in self._paths for each in _above(path))

    def meets(self, path: str) -> bool:
        """Whether it is one of them, below one, or above one."""
        return path in self._above or self.cover(path)

    def take(self, path: str) -> list[str]:
        """Those that it meets, which are gone from here."""
        met = [each for each in (path, *_above(path)) if each in self._paths]
        if path in self._above:
            met += [each for each in self._paths if each != path and _covers(path, each)]
            self._above.discard(path)
        self._paths.difference_update(met)
        return met


def _above(path: str) -> Iterator[str]:
    """`a.b` and `a` of `a.b.c`."""
    while (at := path.rfind(".")) >= 0:
        path = path[:at]
        yield path


def _covers(outer: str, inner: str) -> bool:
    """Whether `inner` is `outer` or below it."""
    return inner == outer or (inner.startswith(outer) and inner[len(outer)] == ".")


def _unflattened(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            below = node.get(name)
            if not isinstance(below, dict):
                below = node[name] = {}
            node = below
        node[last] = value
    return tree

"""`run.summary`: the outputs of a run."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
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
        for path, value in writes:
            dotted = ".".join(path)
            # list() of a dict is one step for other threads; a loop over it is not.
            for old in [p for p in list(self._explicit) if _covers(dotted, p) or _covers(p, dotted)]:
                self._explicit.pop(old, None)
                gone[old] = None
            if value is MISSING:
                for old in [p for p in {**self._before, **self._latest()} if _covers(dotted, p)]:
                    gone[old] = None
                gone[dotted] = None
                self._deleted.add(dotted)
                continue
            new = flatten({dotted: plain(value)})
            self._explicit.update(new)
            put.update(new)
            self._deleted.difference_update(
                [p for p in list(self._deleted) if any(_covers(p, q) or _covers(q, p) for q in new)]
            )
        body: dict[str, Any] = {"set": put}
        if removed := [path for path in gone if path not in put]:
            body["del"] = removed
        self._send(body)

    def _tree(self) -> dict[str, Any]:
        explicit, deleted = dict(self._explicit), list(self._deleted)
        logged = self._latest()
        before = {
            path: value
            for path, value in self._before.items()
            if not any(_covers(path, new) or _covers(new, path) for new in logged)
        }
        flat = {
            path: value
            for path, value in {**before, **logged}.items()
            if not any(_covers(gone, path) for gone in deleted)
            and not any(_covers(path, own) or _covers(own, path) for own in explicit)
        }
        flat.update(explicit)
        tree = _unflattened(flat)
        return {k: Section(v, (k,), self._write) if isinstance(v, dict) else v for k, v in tree.items()}


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

"""`run.config`: the inputs of a run."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from trackd_proto import limits

from trackd import values
from trackd.errors import ConfigError
from trackd.sections import plain, wrap

DEFAULTS_FILE: Final = "config-defaults.yaml"
_MAX_ARRAY: Final = 50_000
_LIBRARIES: Final = ("torch", "jax", "jaxlib", "tensorflow", "numpy")

Send = Callable[[dict[str, Any]], None]


class Config(Mapping[str, Any]):
    """Values by item (``config["lr"]``) or attribute (``config.lr``), nested ones included.

    A key that has a value may get a different one only with ``update(..., allow_val_change=True)``, or when the run was
    made with ``allow_val_change=True``, or in a notebook; else ConfigError. Writes into nested maps are
    always taken, and recorded; so are changes of lists, at the latest when the run ends.
    """

    __slots__ = ("_can_change", "_send", "_sent", "_values")

    def __init__(self, send: Send, *, can_change: bool = False) -> None:
        set_ = object.__setattr__
        set_(self, "_values", {})
        set_(self, "_sent", {})
        set_(self, "_send", send)
        set_(self, "_can_change", can_change)

    def __getitem__(self, key: str) -> Any:
        return self._values[str(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"config has no value {name!r}") from None

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update({key: value})

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __repr__(self) -> str:
        return repr(self.as_dict())

    def update(self, d: Any = None, allow_val_change: bool | None = None, **more: Any) -> None:
        """Set several values. `d` is a mapping, an argparse.Namespace, absl flags, a dataclass, a YAML file's path, …

        Raises:
            ConfigError: a key has another value already and changing it is not allowed; nothing is changed then.
            TypeError, ValueError: `d` is none of these.
        """
        new = {**from_any(d), **more}
        if not (self._can_change if allow_val_change is None else allow_val_change):
            self._refuse_changes(new)
        self._put(new)

    def setdefaults(self, d: Any) -> None:
        """Set the values whose keys are not there yet."""
        self._put({key: value for key, value in from_any(d).items() if key not in self._values})

    def as_dict(self) -> dict[str, Any]:
        """A plain copy; nested sections are dicts."""
        return dict(plain(self._values))

    def persist(self) -> None:
        """Record what was changed inside values since (a list that was appended to)."""
        self.flush(self._values)

    def flush(self, keys: Any) -> None:
        """Record the current values of `keys` that differ from what was recorded last."""
        body = {key: recordable(self._values[key]) for key in list(keys) if key in self._values}
        changed = {}
        for key, value in body.items():
            encoded = _encoded(value)
            if self._sent.get(key) != encoded:
                self._sent[key] = encoded
                changed[key] = value
        if changed:
            self._send(changed)

    def restore(self, values_: Mapping[str, Any]) -> None:
        """Take values that are recorded already (in a process that joined the run)."""
        for key, value in values_.items():
            self._values[key] = wrap(value, (key,), self._nested_change)
            self._sent[key] = _encoded(recordable(value))

    def _put(self, new: Mapping[str, Any]) -> None:
        for key, value in new.items():
            self._values[key] = wrap(_as_section(value), (key,), self._nested_change)
        self.flush(new)

    def _nested_change(self, path: tuple[str, ...], _value: Any) -> None:
        self.flush((path[0],))

    def _refuse_changes(self, new: Mapping[str, Any]) -> None:
        for key, value in new.items():
            if key in self._values and not _equal(self._values[key], value):
                old = plain(self._values[key])
                raise ConfigError(
                    f"config.{key} is {old!r} and would become {value!r}: to change it on purpose, call "
                    f"config.update({{{key!r}: ...}}, allow_val_change=True) or init(allow_val_change=True)"
                )


def from_any(source: Any, name: str = "config") -> dict[str, Any]:
    """What users pass as a config, as a dict with str keys.

    Raises:
        TypeError, ValueError: naming the argument `name` and what was expected.
    """
    if source is None:
        return {}
    if isinstance(source, (str, os.PathLike)):
        return read_yaml(Path(source), name)
    if _is_namespace(source):
        found: Any = vars(source)
    elif isinstance(source, Mapping):
        found = source
    elif callable(getattr(source, "flag_values_dict", None)):  # absl.flags.FLAGS
        found = source.flag_values_dict()
    elif hasattr(type(source), "__dataclass_fields__"):
        found = _dataclass(source)
    elif callable(getattr(source, "model_dump", None)) and not isinstance(source, type):  # pydantic
        found = source.model_dump()
    elif callable(getattr(source, "items", None)):
        found = dict(source.items())
    else:
        raise TypeError(
            f"{name}: expected a dict, argparse.Namespace, absl flags, a dataclass, the path of a YAML file or an "
            f"object with items(), got {type(source).__name__}"
        )
    return {str(key): value for key, value in found.items()}


def _is_namespace(source: object) -> bool:
    argparse = sys.modules.get("argparse")  # who made one has imported it
    return argparse is not None and isinstance(source, argparse.Namespace)


def read_yaml(path: Path, name: str = "config") -> dict[str, Any]:
    """The values of a YAML file; where it has `wandb_version`, ``key: {value: …, desc: …}`` means the value.

    Raises:
        ValueError: naming the file and what was expected.
    """
    import yaml  # noqa: PLC0415 - only who passes a file pays for it

    class Loader(yaml.SafeLoader):
        """YAML 1.1 with floats as in 1.2: ``1e-3`` is a number, not a text."""

    Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: cannot read the YAML file {path}: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{name}: {path} must hold a mapping (lines such as lr: 0.1), not a {type(found).__name__}")
    if "wandb_version" in found:
        found = {
            key: value["value"] if isinstance(value, dict) and "value" in value else value
            for key, value in found.items()
            if key != "wandb_version"
        }
    return {str(key): value for key, value in found.items()}


_FLOAT: Final = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


def recordable(value: Any, depth: int = 1) -> Any:
    """`value` as a record holds it; in a config, paths, classes, functions, dtypes and devices are texts.

    `depth`: maps and lists around it, the config included. What holds itself would have no end.
    """
    is_map = isinstance(value, Mapping)
    if is_map or isinstance(value, (list, tuple)) or hasattr(type(value), "__dataclass_fields__"):
        if depth >= limits.MAX_DEPTH:
            return values.too_deep(value)
        if isinstance(value, (list, tuple)):
            return [recordable(each, depth + 1) for each in value]
        inside = value if is_map else _dataclass(value)
        return {str(key): recordable(each, depth + 1) for key, each in list(inside.items())}
    return values.to_safe(_readable(value))


def _readable(value: Any) -> Any:
    kind = type(value)
    if kind in values.SCALARS:
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    size = getattr(value, "size", None)
    if isinstance(size, int) and size <= _MAX_ARRAY and hasattr(value, "tolist"):  # numpy: kept whole
        return value.tolist()
    is_array = hasattr(kind, "item") or hasattr(kind, "numpy")
    if isinstance(value, complex) or (kind.__module__.partition(".")[0] in (*_LIBRARIES, *_TEXT) and not is_array):
        return str(value)
    return value


_TEXT: Final = ("decimal", "_decimal", "fractions", "uuid", "pathlib", "re")


def _as_section(value: Any) -> Any:
    """Mappings and dataclasses inside a config become dicts, so that writes into them are seen."""
    if isinstance(value, dict):
        return plain(value)
    return dict(value.items()) if isinstance(value, Mapping) else value


def _dataclass(source: Any) -> dict[str, Any]:
    # dataclasses.asdict would deep-copy, which fails for what cannot be copied (locks, modules).
    missing = [f for f in source.__dataclass_fields__ if not hasattr(source, f)]
    return {f: getattr(source, f) for f in source.__dataclass_fields__ if f not in missing}


def _encoded(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def _equal(old: Any, new: Any) -> bool:
    if old is new:
        return True
    try:
        return _encoded(recordable(old)) == _encoded(recordable(new)) or bool(type(old) is not bool and old == new)
    except Exception:  # arrays compare to arrays
        return False


def defaults_file() -> dict[str, Any]:
    """What ``config-defaults.yaml`` in the working directory holds; {} if there is none."""
    path = Path(DEFAULTS_FILE)
    return read_yaml(path, DEFAULTS_FILE) if path.is_file() else {}

"""Checks what `init()` was given: every mistake names the argument and what was expected."""

import os
from collections.abc import Mapping
from typing import Any, Final

from trackd import messages, naming
from trackd.run import check_tags

_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "entity": ((str,), "a text"),
    "project": ((str,), "a text"),
    "dir": ((str, os.PathLike), "a path"),
    "id": ((str,), "a text"),
    "name": ((str,), "a text"),
    "notes": ((str,), "a text"),
    "config_exclude_keys": ((list, tuple, set, frozenset), "a list of keys"),
    "config_include_keys": ((list, tuple, set, frozenset), "a list of keys"),
    "allow_val_change": ((bool,), "True or False"),
    "group": ((str,), "a text"),
    "job_type": ((str,), "a text"),
    "mode": ((str,), "'online', 'offline' or 'disabled'"),
    "force": ((bool,), "True or False"),
    "reinit": ((bool, str), "True, False or one of 'default', 'return_previous', 'finish_previous', 'create_new'"),
    "resume": ((bool, str), "True, False, 'allow', 'must', 'never' or 'auto'"),
    "resume_from": ((str,), "a text such as 'id?_step=100'"),
    "fork_from": ((str,), "a text such as 'id?_step=100'"),
    "save_code": ((bool,), "True or False"),
    "tensorboard": ((bool,), "True or False"),
    "sync_tensorboard": ((bool,), "True or False"),
    "monitor_gym": ((bool,), "True or False"),
}

_NOT_BUILT: Final = ("save_code", "tensorboard", "sync_tensorboard", "monitor_gym")
"""Taken, and said once to have no effect in this version."""

_RENAMED: Final = {
    "run_name": "name",
    "run_notes": "notes",
    "run_tags": "tags",
    "run_group": "group",
    "run_job_type": "job_type",
    "root_dir": "dir",
    "id": "run_id",
}
"""Names that other trackers' settings have for ours."""


class Settings(dict[str, Any]):
    """What ``init(settings=)`` takes, as in ``trackd.Settings(mode="offline")``; names: docs/configuration.md."""


def check(given: Mapping[str, Any]) -> None:
    """Types and values of the arguments that were given (None: not given), and news about those without effect.

    Raises:
        TypeError: wrong type. ValueError: right type, wrong value.
    """
    for name, value in given.items():
        if value is None or name not in _KINDS:
            continue
        kinds, expected = _KINDS[name]
        if not isinstance(value, kinds):
            raise TypeError(f"{name}: expected {expected}, got {type(value).__name__} {value!r:.100}")
    if given.get("tags") is not None:
        check_tags(given["tags"])
    for name, explain in (("project", naming.project_error), ("id", naming.id_error)):
        value = given.get(name)
        if value is not None and (why := explain(value)):
            raise ValueError(f"{name}: {value!r} cannot be used: {why}")
    for name in _NOT_BUILT:
        if given.get(name):
            messages.warn_once(f"init({name}=...) has no effect in this version of trackd")


def resume(value: bool | str | None) -> str | None:
    """The setting that an argument means; True is "auto" and False is none, as in wandb."""
    if value is None or value is False:
        return None
    return "auto" if value is True else value


def reinit(value: bool | str | None) -> str | None:
    """The setting that an argument means; booleans as in wandb."""
    if isinstance(value, bool):
        return "finish_previous" if value else "return_previous"
    return value


def settings(value: Any) -> dict[str, Any]:
    """``init(settings=)`` as a mapping by our names. Raises TypeError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"settings: expected a dict such as {{'mode': 'offline'}}, got {type(value).__name__}")
    return {_RENAMED.get(str(name), str(name)): each for name, each in value.items()}

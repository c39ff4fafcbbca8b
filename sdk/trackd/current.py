"""Which runs are open in this process, and which of them the module-level names of `trackd` mean."""

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from trackd.errors import UsageError

if TYPE_CHECKING:
    from trackd.run import Run

_open: "list[Run]" = []
_last: "Run | None" = None


def runs() -> "list[Run]":
    """The open runs that this process began (a forked child has none of its parent's), oldest first."""
    pid = os.getpid()
    return [run for run in _open if run.pid == pid]


def attached() -> "list[Run]":
    """The open runs that this process writes to, but does not own: inherited by a fork, or sent by pickle."""
    pid = os.getpid()
    return [run for run in _open if run.pid != pid or not run.is_owner]


def add(run: "Run", *, is_current: bool) -> None:
    """Remember an open run; `is_current`: `trackd.run`, `trackd.log`, … mean it from now on."""
    global _last
    _open.append(run)
    if is_current:
        _last = run
        _publish(run)


def remove(run: "Run") -> None:
    """Forget a run that ended; the module-level names fall back to an outer run that is open, else to none."""
    if run in _open:
        _open.remove(run)
    package = sys.modules["trackd"]
    if getattr(package, "run", None) is run:
        _publish(next((each for each in reversed(_open) if each.was_current), None))


def last() -> "Run | None":
    """The run that the module-level names meant last, ended or not."""
    return _last


def _publish(run: "Run | None") -> None:
    names = vars(sys.modules["trackd"])
    if run is None:
        names.update(run=None, config=PreInit("config"), summary=PreInit("summary"), log=log)
    else:
        run.was_current = True
        names.update(run=run, config=run.config, summary=run.summary, log=run.log)


def log(data: Any, step: int | None = None, commit: bool | None = None) -> None:
    """`trackd.log` while no run is current, or for who imported the name before `init()`."""
    run = getattr(sys.modules["trackd"], "run", None) or _last
    if run is None:
        refuse("log()")
    run.log(data, step, commit)


def refuse(what: str) -> NoReturn:
    """There was no `init()` yet."""
    raise UsageError(f"trackd.{what} needs a run: call trackd.init() first")


class PreInit:
    """`trackd.config` and `trackd.summary` before `init()`: every use says what to do; afterwards it forwards."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _target(self) -> Any:
        run = getattr(sys.modules["trackd"], "run", None)
        return getattr(run, self._name) if run is not None else refuse(self._name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # hasattr(), copy and pickle protocols, notebooks' introspection
            raise AttributeError(name)
        return getattr(self._target(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target(), name, value)

    def __getitem__(self, key: str) -> Any:
        return self._target()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._target()[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._target()

    def __iter__(self) -> Any:
        return iter(self._target())

    def __repr__(self) -> str:
        return f"<trackd.{self._name}: call trackd.init() first>"

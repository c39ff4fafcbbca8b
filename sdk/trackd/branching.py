"""`init(resume_from=..., fork_from=...)`: where an attempt begins. Pure."""

import re
from typing import Any, Final

import msgspec

from trackd import naming

_MOMENT: Final = re.compile(r"(?P<run>[^?]+)\?_step=(?P<step>[0-9]{1,18})")


class Moment(msgspec.Struct, frozen=True):
    """Behind a step of a run."""

    run_id: str
    step: int
    is_fork: bool

    @property
    def argument(self) -> str:
        """Which argument of `init()` says it."""
        return "fork_from" if self.is_fork else "resume_from"

    def branch(self) -> dict[str, Any]:
        """As it stands in START."""
        return {"run_id": self.run_id, "step": self.step}


def moment(resume_from: str | None, fork_from: str | None, run_id: str | None, resume: Any) -> Moment | None:
    """What the arguments of `init()` mean; None if neither is given.

    Raises:
        ValueError: a text that names no step of a run, or arguments that exclude each other.
    """
    given = {name: text for name, text in (("resume_from", resume_from), ("fork_from", fork_from)) if text}
    if not given:
        return None
    if len(given) > 1:
        raise ValueError("resume_from, fork_from: expected at most one of them")
    ((name, text),) = given.items()
    if resume:
        raise ValueError(
            f"{name}, resume: expected at most one of them; {name} says already which run this goes on with"
        )
    found = _MOMENT.fullmatch(text)
    if found is None or naming.id_error(found["run"]):
        raise ValueError(
            f"{name}: expected the id of a run and a step, such as 'k3v9a0xq?_step=100', got {text!r:.100}"
        )
    of = Moment(found["run"], int(found["step"]), is_fork=name == "fork_from")
    if of.is_fork and run_id == of.run_id:
        raise ValueError(
            f"fork_from: a fork of {of.run_id!r} needs an id of its own: leave out id=, or use "
            f"resume_from={text!r} to go on with the run itself"
        )
    if not of.is_fork and run_id not in (None, "", of.run_id):
        raise ValueError(f"id: resume_from={text!r} goes on with the run {of.run_id!r}, not with {run_id!r}")
    return of

"""What a run is, as far as its records and its copies in other processes need to know."""

import os
import sys
from typing import Any

import msgspec
from trackd_proto import spool, version

from trackd.branching import Moment


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A run and the attempt of it that this `init()` began. Travels to child processes inside a pickled Run."""

    project: str
    run_id: str
    name: str
    entity: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    group: str = ""
    job_type: str = ""
    resume: str = ""
    branch: Moment | None = None
    """Where it begins by the script's words (`resume_from`, `fork_from`)."""
    is_name_generated: bool = False
    mode: str = "online"
    route: str = "embedded"
    run_dir: str = ""
    """Absolute; `files/` is in it."""
    home: str = ""
    """Absolute; where the spool is."""
    attempt: str = ""
    """Hex UUID, the same for every writer of one `init()`."""
    start_us: int = 0
    program: str = ""

    def target(self, *, role: str, announce: bool) -> spool.Target:
        """Where the records of a lane of this run go."""
        return spool.Target(
            mode=self.mode,
            route=self.route,
            project=self.project,
            run_id=self.run_id,
            run_dir=self.run_dir,
            role=role,
            attempt=self.attempt,
            attempt_start_us=self.start_us,
            announce=announce,
            name=self.name,
        )

    def start(self, *, is_main: bool) -> dict[str, Any]:
        """Body of a START record (trackd_proto.records)."""
        body: dict[str, Any] = {
            "project": self.project,
            "run_id": self.run_id,
            "entity": self.entity or None,
            "attempt": self.attempt,
            "attempt_start_us": self.start_us,
            "writer": {"host": os.uname().nodename, "parent": None},
            "created_us": self.start_us,
            "sdk": version.VERSION,
            "python": sys.version.partition(" ")[0],
            "program": self.program or None,
            "user": _user(),
            "resume": self.resume or None,
        }
        if self.branch is not None:
            body["branch"] = self.branch.branch()
        if is_main:
            body |= {
                "name": self.name,
                "is_name_generated": self.is_name_generated,
                "notes": self.notes or None,
                "tags": list(self.tags),
                "group": self.group or None,
                "job_type": self.job_type or None,
            }
        return body


def _user() -> str:
    try:
        import pwd  # noqa: PLC0415 - not on every system

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # a container often has no entry for its uid
        return os.environ.get("USER") or f"uid {os.geteuid()}"


def is_free_threaded() -> bool:
    """Whether this Python was built without the GIL."""
    return "t" in getattr(sys, "abiflags", "")

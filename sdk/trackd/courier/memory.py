"""Whether the kernel's out-of-memory killer has been at work where a process lives: counters before and after."""

import re
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_COUNTER: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomWatch:
    """The kill counters of one process's memory cgroup and of the machine, as they are now; asked again at its end.

    Args:
        pid: the process, alive.
        cgroups: where the cgroup file systems are mounted.
        proc: where proc is.
    """

    def __init__(self, pid: int, cgroups: Path = _ROOT, proc: Path = Path("/proc")) -> None:
        self._machine = proc / "vmstat"
        self._group = next((path for path in _candidates(pid, cgroups, proc) if _count(path) is not None), None)
        self._before = {path: _count(path) for path in (self._group, self._machine) if path is not None}

    def verdict(self) -> str | None:
        """In words, what speaks for a kill by the kernel since; None: nothing does."""
        if self._group is not None:
            if self._has_grown(self._group):
                return "the kernel killed a process of this job's memory cgroup"
            return None
        if self._has_grown(self._machine):
            return "probably; the kernel killed a process of this machine for memory meanwhile"
        return None

    def _has_grown(self, path: Path) -> bool:
        before, now = self._before.get(path), _count(path)
        return before is not None and now is not None and now > before


def _candidates(pid: int, cgroups: Path, proc: Path) -> list[Path]:
    """Files with an oom_kill line that may count for this process; version 2 first, then version 1."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if not controllers:
            found += [cgroups / inside / "memory.events", cgroups / "unified" / inside / "memory.events"]
        elif "memory" in controllers.split(","):
            # In a container without a cgroup namespace the path is the host's, the mount is the container's own.
            found += [cgroups / "memory" / inside / "memory.oom_control", cgroups / "memory" / "memory.oom_control"]
    return found


def _count(path: Path) -> int | None:
    try:
        match = _COUNTER.search(path.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return int(match[1]) if match else None

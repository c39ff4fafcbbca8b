"""How a process that a trainer started keeps out of its way."""

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

_NICE: Final = 5
_MOST_FILES: Final = 65_536


def step_back() -> None:
    """Leave the trainer's CPUs and priority alone. Nothing here may fail."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        # Where the kernel groups tasks by terminal session, niceness counts only inside one, and ours is our own.
        Path("/proc/self/autogroup").write_text(str(_NICE))
    with contextlib.suppress(OSError, AttributeError):
        # Waking up must not push the trainer off its core: wait for the end of its turn.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def allow_many_files() -> None:
    """As many as the hard limit lets us, up to 65,536: a shell's 1,024 is for programs that use select()."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        goal = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < goal:
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))

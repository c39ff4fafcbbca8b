"""How many files a process of ours may have open."""

import contextlib
import resource
from typing import Final

_MOST: Final = 65_536


def allow_many() -> None:
    """As many as the hard limit lets us, up to 65,536: a shell's 1,024 is for programs that use select()."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        goal = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        if soft != resource.RLIM_INFINITY and soft < goal:
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))

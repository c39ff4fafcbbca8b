"""How a lane notices that it is in a forked child, whoever forked."""

import mmap
import os
import threading
from typing import Final

_WIPE_ON_FORK: Final = 18
_unwiped: Final[list[mmap.mmap]] = []
_lock: Final = [threading.RLock()]


def guard() -> mmap.mmap:
    """A page whose first two bytes are 1 here and 0 in every forked child, forks behind Python's back included.

    The first is the owner's to clear, so that one look tells of both.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[0] = page[1] = 1
    try:
        page.madvise(_WIPE_ON_FORK)
    except (OSError, ValueError, AttributeError):
        _unwiped.append(page)
    return page


def lock() -> "threading.RLock":
    """For what a child does once; free in every child, whatever its parent's other threads did."""
    return _lock[0]


def is_inside() -> bool:
    """Whether this thread is doing that: a signal handler, a finalizer."""
    return _lock[0]._is_owned()  # type: ignore[attr-defined,no-any-return]


def _after_fork_in_child() -> None:
    _lock[0] = threading.RLock()
    for page in _unwiped:
        page[0] = page[1] = 0


os.register_at_fork(after_in_child=_after_fork_in_child)

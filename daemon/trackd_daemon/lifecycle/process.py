"""What a daemon does to its own process, before anything else."""

import concurrent.futures
import contextlib
import ctypes
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Final

from trackd_proto.limits import MIB
from trackd_proto.local import guest

_OOM_SCORE = "500"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 32 * MIB
_MAP_BYTES = 16 * MIB
_ARENAS = 2
WORKERS: Final = 6
"""Of a daemon, for what would block its loop."""
_START_S = 10.0


def settle() -> None:
    """Private files, many descriptors, few heaps; nothing here may fail. Before the first thread."""
    os.umask(0o077)
    _set_malloc(_M_ARENA_MAX, _ARENAS)
    guest.allow_many_files()


def step_back() -> None:
    """A spawned daemon: leave the trainer's CPUs, priority and memory alone."""
    guest.step_back()
    with contextlib.suppress(OSError):
        # Killed by the kernel before the trainer is.
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def keep_freed_memory() -> None:
    """For a hub: let glibc keep some of what is freed. Arrays of a chart of a million points are megabytes large;
    with fresh pages from the kernel each time the chart takes twice as long."""
    _set_malloc(_M_MMAP_THRESHOLD, _MAP_BYTES)
    _set_malloc(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def give_back_freed_memory() -> None:
    """Return what was freed to the kernel, also between what is in use: for the moment after large work."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def workers() -> concurrent.futures.ThreadPoolExecutor:
    """Threads for what would block the loop, all of them there from the start.

    A pool that grows when work happens to coincide makes another thread after hours, and looks like a leak.
    """
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="trackd-work")
    everybody = threading.Barrier(WORKERS)
    for _ in range(WORKERS):
        pool.submit(everybody.wait, _START_S)  # each occupies a thread until all have one
    return pool


def _set_malloc(option: int, value: int) -> None:
    """glibc gives threads heaps of their own, eight per core, and each keeps what the largest piece of work took in it:
    a hub with 35 MiB in use held 200 after half an hour. Python runs one thread at a time: two heaps are enough."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(option, value)


def rss_bytes() -> int:
    """Resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def pid() -> int:
    """Of this process."""
    return os.getpid()

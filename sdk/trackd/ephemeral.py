"""Whether a directory is gone when the job or container is: nothing there can be sent later."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_FILE_SYSTEMS: Final = frozenset({"overlay", "tmpfs", "ramfs", "aufs"})
_SCRATCH_VARIABLES: Final = ("SLURM_TMPDIR", "PBS_JOBDIR", "LSF_TMPDIR", "_CONDOR_SCRATCH_DIR")


def is_ephemeral(directory: str, environ: Mapping[str, str] = os.environ, mounts: Iterable[str] | None = None) -> bool:
    """True on an overlay, in memory, or in the scratch directory of a scheduler's job.

    Args:
        directory: absolute path.
        environ: names scratch directories.
        mounts: lines of mountinfo (proc(5)), instead of this process's.
    """
    path = os.path.realpath(directory)
    if any(_is_below(path, os.path.realpath(place)) for name in _SCRATCH_VARIABLES if (place := environ.get(name))):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines() if mounts is None else mounts
    except (OSError, UnicodeDecodeError):
        return False
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        point = fields[4].encode().decode("unicode_escape") if len(fields) > 4 else ""
        if point and _is_below(path, point) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind in _FILE_SYSTEMS


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")

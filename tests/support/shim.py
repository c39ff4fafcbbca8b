"""Builds libraries for LD_PRELOAD; steers shim.c: faults in the system calls of a real process on the files below one
directory."""

from __future__ import annotations

import atexit
import functools
import mmap
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final

KINDS: Final = ("write", "pwrite", "fdatasync", "fsync", "rename", "open", "ftruncate", "fallocate", "unlink")
ANY: Final = "any"
ACTIONS: Final = ("nothing", "fail", "short", "kill", "delay", "drop")
FOR_EVER: Final = 1 << 40
_WORDS: Final = 7 + len(KINDS)


@functools.cache
def library(source: str = "shim.c") -> Path | None:
    """A source beside this file, compiled; None where there is no C compiler for Linux."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    built = Path(tempfile.mkdtemp(prefix="trackd-shim-")) / "shim.so"
    atexit.register(shutil.rmtree, built.parent, ignore_errors=True)
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(Path(__file__).with_name(source)), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return built if done.returncode == 0 else None


class Shim:
    """The faults of one process: set before or while it runs."""

    def __init__(self, directory: Path, below: Path) -> None:
        """`directory`: for the control file. Only calls on paths that begin with `below` count."""
        built = library()
        assert built is not None, "no C compiler"
        control = directory / "control"
        control.write_bytes(bytes(8 * _WORDS))
        self.environ = {"LD_PRELOAD": str(built), "SHIM_CONTROL": str(control), "SHIM_BELOW": str(below)}
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * _WORDS)
        self._words = memoryview(self._map).cast("l")

    def arm(self, kind: str, action: str, *, when: int = 1, times: int = 1, number: int = 0) -> None:
        """From the `when`th call of a kind on (or of any), `times` of them. `number`: errno or milliseconds."""
        self.disarm()
        self._words[0] = (*KINDS, ANY).index(kind)
        self._words[2:6] = memoryview(struct.pack("4l", when, times, number, 0)).cast("l")
        self._words[6] = 0
        self._words[1] = ACTIONS.index(action)

    def disarm(self) -> int:
        """No more faults; how many there were since the last time that they were armed."""
        self._words[1] = 0
        return self._words[6]

    @property
    def fired(self) -> int:
        """Faults since the last time that they were armed."""
        return self._words[6]

    @property
    def calls(self) -> dict[str, int]:
        """Calls of each kind so far."""
        return dict(zip(KINDS, self._words[7:], strict=True))

    def close(self) -> None:
        """Let go of the control file."""
        self._words.release()
        self._map.close()

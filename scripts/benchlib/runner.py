"""Runs probes: the right interpreter, a private home for each, nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchlib.probe import MARK

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("wandb", "trackio")
Result = dict[str, Any]


class ProbeError(RuntimeError):
    """A probe died or printed no result; the text holds the end of its output."""


def python(tool: str, kind: str = "") -> str:
    """The interpreter of the environment in which `tool` is installed (with torch, for values of that kind)."""
    if tool in PEERS:
        return str(ROOT / f".venv-bench-{tool}/bin/python")
    return str(ROOT / ".venv-bench-torch/bin/python") if kind == "torch" else sys.executable


@dataclass
class Place:
    """A directory that is everything to one tracker: its home, its data, its working directory."""

    directory: Path
    extra: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("TRACKD_", "WANDB_", "TRACKIO_"))}
        return kept | {
            "HOME": str(self.directory),
            "TRACKD_HOME": str(self.directory / "trackd"),
            "TRACKD_QUIET": "1",
            "TRACKIO_DIR": str(self.directory / "trackio"),
            "WANDB_SILENT": "true",
            "PYTHONPATH": str(ROOT / "scripts"),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **self.extra,
        }

    def processes(self) -> list[psutil.Process]:
        """What still runs with this place as its home."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.environ().values(), *process.cmdline()]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and any(str(self.directory) in word for word in words):
                found.append(process)
        return found

    def clear(self) -> None:
        """Ends what still runs here."""
        for stop in ("terminate", "kill"):
            left = self.processes()
            for process in left:
                try:
                    getattr(process, stop)()
                except psutil.Error:
                    continue
            psutil.wait_procs(left, timeout=10)

    def size(self, pattern: str) -> int:
        """Bytes on disk of the files that match."""
        return sum(path.stat().st_blocks * 512 for path in self.directory.rglob(pattern) if path.is_file())


@contextmanager
def place(**extra: str) -> Iterator[Place]:
    """A fresh place, on the file system of the project (where a user's data would be), removed afterwards."""
    base = ROOT / ".scratch"
    base.mkdir(exist_ok=True)
    there = Place(Path(tempfile.mkdtemp(prefix="bench-", dir=base)), extra)
    try:
        yield there
    finally:
        there.clear()
        shutil.rmtree(there.directory, ignore_errors=True)


def run(where: Place, probe: str, tool: str, *, timeout_s: float = 300, **arguments: Any) -> Result:
    """One probe in a fresh process. Adds `exited`: CLOCK_MONOTONIC when the process was gone. Raises ProbeError."""
    command = [
        python(tool, str(arguments.get("kind"))),
        "-m",
        "benchlib.probe",
        probe,
        json.dumps({"tool": tool, **arguments}),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=where.directory,
            env=where.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"{probe} of {tool} took more than {timeout_s:.0f} s") from error
    exited = time.monotonic()
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            result: Result = json.loads(line[len(MARK) :])
            return result | {"exited": exited}
    raise ProbeError(f"{probe} of {tool} ended with {done.returncode} and no result:\n{done.stdout[-2000:]}")

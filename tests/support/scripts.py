"""Real programs for system tests: a script run in a process of its own, the `trackd` command, what the hub answers."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

READ = """
import json, sys, trackd
run = trackd.Api().run(sys.argv[1])
rows = [{k: v for k, v in row.items() if k not in ("_timestamp", "_runtime")} for row in run.scan_history()]
print(json.dumps({"rows": rows, "state": run.state, "config": dict(run.config), "name": run.name}))
"""


def python(
    program: str, *arguments: str, cwd: Path, code: int = 0, timeout_s: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `program` and checks that it ends with `code`."""
    return _run([sys.executable, "-c", program, *arguments], cwd, code, timeout_s, environment)


def trackd(*arguments: str, cwd: Path, code: int = 0, timeout_s: float = 60, **environment: str) -> str:
    """What `trackd ARGUMENTS` printed; checks that it ends with `code`."""
    return _run([str(Path(sys.executable).with_name("trackd")), *arguments], cwd, code, timeout_s, environment).stdout


def _run(
    command: Sequence[str], cwd: Path, code: int, timeout_s: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == code, f"ended with {done.returncode}, expected {code}:\n{done.stdout}\n{done.stderr}"
    return done


def read(path: str, cwd: Path, **environment: str) -> dict[str, Any]:
    """A run as the hub has it: rows without their times, state, config, name."""
    found: dict[str, Any] = json.loads(python(READ, path, cwd=cwd, **environment).stdout)
    return found

"""T17: every parser is fed mutated bytes, each in a process of its own; see scripts/torture-fuzz."""

from __future__ import annotations

import subprocess
import sys

import table
from support.fuzzing import MAX_MIB, MAX_SECONDS, TARGETS

_BAR = f"0, {MAX_SECONDS:g} s, {MAX_MIB} MiB"


def main() -> None:
    """Seconds per target, and a seed."""
    seconds, seed = (sys.argv[1:] + ["60", "1"][len(sys.argv) - 1 :])[:2]
    for name in TARGETS:
        command = [sys.executable, "-m", "support.fuzzing", name, seconds, seed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing was printed"]
        measured = lines[0].removeprefix("ok  ").removeprefix("FAIL").replace(name, "", 1).strip()
        table.report("T17", f"{name}, {seconds} s", measured, _BAR, ok=done.returncode == 0)
        print("\n".join(lines[1:]), end="\n" * (len(lines) > 1))
    table.leave()


if __name__ == "__main__":
    main()

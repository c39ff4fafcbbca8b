"""T23: handlers that log, flush and finish at a random moment, in every interpreter that is here.

`scripts/torture handlers [trials per interpreter]`. Interpreters: this one, and the CPythons of
other versions named in TORTURE_PYTHONS (paths, separated by colons), else found on PATH and by pyenv. They get a
throw-away environment with what the package needs, and the SDK of this checkout.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from support import handlers  # noqa: E402
from table import leave, report  # noqa: E402

_VERSIONS = ("3.11", "3.12", "3.13")
_PART = 20


def interpreters() -> list[str]:
    """One per version of the promise, this one's version left out."""
    if named := os.environ.get("TORTURE_PYTHONS"):
        return named.split(":")
    found = []
    for version in _VERSIONS:
        if version == "{}.{}".format(*sys.version_info):
            continue
        pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
        python = shutil.which(f"python{version}") if not pyenv else str(pyenv[-1])
        found += [python] if python else []
    return found


def prepare(python: str, directory: Path) -> list[str]:
    """A command that runs `python` with the SDK of this checkout."""
    environment = directory / Path(python).parent.parent.name
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    command = [str(environment / "bin/python"), "-m", "pip", "install", "-q", *needs]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    own = [str(ROOT / part) for part in ("sdk", "proto", "daemon")]
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "trackd-checkout.pth").write_text("\n".join(own) + "\n")
    return [str(environment / "bin/python")]


def every_bytecode() -> None:
    """close() before every bytecode of log(), the courier reading and freeing in between."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/sdk/test_closing.py"],
        cwd=ROOT, env={**os.environ, "EVERY_NTH_BYTECODE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    measured = done.stdout.strip().splitlines()[-1]
    report(
        "T23", "finish() before every bytecode of log(), in a handler and in a thread", measured, "0 lost",
        ok=done.returncode == 0,
    )  # fmt: skip


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory(prefix="trackd-t23-") as directory:
        pythons = [handlers.own_python(), *(prepare(python, Path(directory)) for python in interpreters())]
        with handlers.hub() as home:
            for python in pythons:
                parts = [min(_PART, trials - done) for done in range(0, trials, _PART)]
                outcomes = [handlers.trial(python, home, part, random.getrandbits(30)) for part in parts]
                wrong = [text for one in outcomes for text in one.wrong]
                for text in wrong:
                    print(text, file=sys.stderr)
                fired = sum(one.handlers for one in outcomes)
                inside = sum(one.inside for one in outcomes)
                finalizers = sum(one.finalizers for one in outcomes)
                done = sum(one.trials for one in outcomes)
                report(
                    "T23",
                    f"{done} runs whose handlers log, flush and finish, {outcomes[0].version}",
                    f"{fired} handlers, {inside} of them inside log(), {finalizers} finalizers:"
                    f" {len(wrong)} hung or lost something; slowest {max(o.slowest_s for o in outcomes):.2f} s",
                    "0 hangs, 0 lost",
                    ok=not wrong and inside > 0 and done == trials,
                )
        report("T23", "interpreters", str(len(pythons)), "3", ok=len(pythons) >= len(_VERSIONS))
        shutil.rmtree(home, ignore_errors=True)
    every_bytecode()
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)

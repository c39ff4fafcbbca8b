"""`scripts/quickstart --check`: installs, trains, reads every value back. Here in an environment already made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("npm") is None, reason="quickstart builds the dashboard")
def test_quickstart_check(trackd_home: Path) -> None:
    if not (ROOT / ".venv/trackd-stamp").exists():
        pytest.skip("not run from the environment that scripts/test makes")
    done = subprocess.run(
        [str(ROOT / "scripts/quickstart"), "--check"],
        env={**os.environ, "TMPDIR": str(trackd_home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("1280 values, all as logged") == 3

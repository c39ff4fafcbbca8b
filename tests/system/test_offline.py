"""Offline runs: kept without network or daemon, sent later, from elsewhere, twice, and never doubled."""

import shutil
from pathlib import Path

import pytest
from support import processes, scripts

ROWS = 5_000

TRAINER = """
import os, signal, sys, trackd
run = trackd.init(project="off", id="offline1", mode="offline", dir=sys.argv[1], config={"lr": 0.1})
for i in range(int(sys.argv[2])):
    run.log({"x": i, "y": i / 3})
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ending", ["finished", "killed"])
def test_flushed_twice_from_another_place(ending: str, trackd_home: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    scripts.python(
        TRAINER, str(here), str(ROWS), ending, cwd=tmp_path, code=-9 if ending == "killed" else 0, TRACKD_QUIET="1"
    )
    assert not processes.daemons(trackd_home), "an offline run needs no daemon"
    processes.wait_until_alone(trackd_home)  # the courier of a killed trainer finishes its work and leaves
    shutil.copytree(here, there)
    shutil.rmtree(here)
    (directory,) = there.glob("trackd-runs/run-*") if (there / "trackd-runs").exists() else there.glob("run-*")

    for _ in range(2):
        scripts.trackd("flush", str(directory), cwd=tmp_path)
        found = scripts.read("off/offline1", tmp_path)
        assert [(row["_step"], row["x"], row["y"]) for row in found["rows"]] == [(i, i, i / 3) for i in range(ROWS)]
    assert found["config"] == {"lr": 0.1}
    assert found["state"] in (("finished",) if ending == "finished" else ("killed", "lost contact"))
    scripts.trackd("verify", "off/offline1", "--dir", str(directory), cwd=tmp_path)


def test_flush_killed_midway(trackd_home: Path, tmp_path: Path) -> None:
    scripts.python(TRAINER, str(tmp_path), str(20 * ROWS), "finished", cwd=tmp_path)
    (directory,) = tmp_path.glob("**/run-*")
    for wait_s in (0.3, 0.6, 1.0):
        scripts.python(FLUSH_AND_DIE, str(directory), str(wait_s), cwd=tmp_path)
        processes.end(processes.daemons(trackd_home), grace_s=0)
    scripts.trackd("flush", str(directory), cwd=tmp_path)
    found = scripts.read("off/offline1", tmp_path)
    assert [row["x"] for row in found["rows"]] == list(range(20 * ROWS))


FLUSH_AND_DIE = """
import subprocess, sys
from pathlib import Path
command = [str(Path(sys.executable).with_name("trackd")), "flush", sys.argv[1]]
flush = subprocess.Popen(command, stdout=subprocess.DEVNULL)
try:
    flush.wait(float(sys.argv[2]))
except subprocess.TimeoutExpired:
    flush.kill()
    flush.wait()
"""

"""T14: whatever forks beside a run that logs, neither parent nor child hangs, dies or loses a row."""

import subprocess
import sys
from pathlib import Path

import pytest
import trackd
from support import forking
from support.serving import wait_for

KINDS = (
    "multiprocessing fork",
    "nested fork",
    "os.fork, threads in the child",
    "fork inside log()",
    "fork, courier dead",
    "C-level fork",
)


@pytest.mark.parametrize("kind", KINDS)
def test_forks(kind: str) -> None:
    found = forking.forks(kind, 12, hang_s=30)
    assert found.is_good, found
    assert kind != "fork inside log()" or found.facts["inside"] > 0


DAEMONIZED = """
import os, sys, time, trackd
run = trackd.init(project="p", id="r", settings={"silent": True})
run.log({"parent": 0})
spool = run._lane._directory
if os.fork():
    run.finish(wait_s=60)
    os._exit(0)
while spool.exists():  # the courier has delivered what the parent logged, and left
    time.sleep(0.02)
for i in range(50):
    run.log({"child": i})
delivered = run.flush(durable=True, timeout_s=60)
open(sys.argv[1], "w").write(str(delivered))
"""


def test_a_child_that_outlives_its_parent_and_its_courier_is_delivered(trackd_home: Path, tmp_path: Path) -> None:
    """As a script that puts itself into the background after init()."""
    told = tmp_path / "told"
    subprocess.run([sys.executable, "-c", DAEMONIZED, str(told)], cwd=tmp_path, timeout=120, check=True)
    wait_for(lambda: told.exists() and told.read_text() != "", "the child's end", 90)
    assert told.read_text() == "True"
    wait_for(lambda: not list(trackd_home.glob("*/spool/*")), "everything delivered", 60)
    rows = list(trackd.Api().run("p/r").scan_history())
    assert [row["child"] for row in rows if "child" in row] == list(range(50))
    assert [row["parent"] for row in rows if "parent" in row] == [0]

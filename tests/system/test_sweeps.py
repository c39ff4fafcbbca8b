"""Thousands of runs in one process: each gives back what it held of the system's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support import processes
from support.serving import free_port, wait_for
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings

RUNS = 60
MORE_RUNS = 150
KEPT = 32
"""Runs without a hub of which the courier keeps head and process, two descriptors each."""
SWEEP = """
import gc, json, os, sys, trackd, trackd.finishing
gc.disable()  # as training loops do
if len(sys.argv) > 3:
    trackd.finishing._GLANCE_S = 0.0  # what every run's end waits for a hub
kept, open_files = [], []
for trial in range(int(sys.argv[1])):
    with trackd.init(project="sweep", mode=sys.argv[2], settings={"silent": True}) as run:
        run.log({"trial": trial})
    kept.append(run)
    open_files.append(len(os.listdir("/proc/self/fd")))
print(json.dumps(open_files), flush=True)
sys.stdin.readline()
run = kept[0]
run.log({"late": 1})
assert run.flush(timeout_s=5) and run.step == 1 and run.summary["trial"] == 0
"""


def sweep(work: Path, runs: int, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    file = work / "sweep.py"
    file.write_text(SWEEP)
    return subprocess.Popen(
        [sys.executable, str(file), str(runs), *arguments], env=os.environ | environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=work, text=True,
    )  # fmt: skip


def only_courier(home: Path) -> psutil.Process:
    (courier,) = [p for p in processes.of_home(home) if "trackd.courier" in " ".join(p.cmdline())]
    return courier


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_sweep_in_one_process_holds_no_more_files_at_its_end_than_at_its_begin(
    mode: str, trackd_home: Path, tmp_path: Path
) -> None:
    with sweep(tmp_path, RUNS, mode) as trainer:
        assert trainer.stdout and trainer.stdin
        open_files = json.loads(trainer.stdout.readline())
        # A run that is not durable yet when the next begins keeps its head until it is, 32 of them at most.
        assert max(open_files) <= open_files[0] + 33 and open_files[-1] <= open_files[0] + 6, open_files
        courier = only_courier(trackd_home)
        wait_for(lambda: courier.num_fds() <= 25, f"the courier to let go: {courier.open_files()}", 30)
        trainer.communicate("\n", timeout=60)
    assert trainer.returncode == 0
    if mode == "online":
        hub = HubClient.of_settings(Settings(home=str(trackd_home)))
        assert len(hub.get("/projects/sweep/runs?limit=100")["runs"]) == RUNS


def test_of_a_sweep_that_no_hub_takes_the_courier_keeps_the_newest_runs(trackd_home: Path, tmp_path: Path) -> None:
    away = {"TRACKD_UPSTREAM": f"127.0.0.1:{free_port()}"}
    with sweep(tmp_path, MORE_RUNS, "online", "hurry", **away) as trainer:
        assert trainer.stdout and trainer.stdin
        assert len(json.loads(trainer.stdout.readline())) == MORE_RUNS
        courier = only_courier(trackd_home)
        wait_for(lambda: not list(trackd_home.glob("*/spool/*/*.head")), "everything to be durable")
        wait_for(lambda: courier.num_fds() <= 25 + 2 * KEPT, f"the courier to let go: {courier.num_fds()}", 10)
        trainer.communicate("\n", timeout=60)
    assert trainer.returncode == 0

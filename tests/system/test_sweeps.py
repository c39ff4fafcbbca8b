"""Thousands of runs in one process: each gives back what it held of the system's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes
from support.serving import wait_for
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings

RUNS = 60
SWEEP = """
import gc, json, os, sys, trackd
gc.disable()  # as training loops do
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


def sweep(mode: str, work: Path) -> subprocess.Popen[str]:
    file = work / "sweep.py"
    file.write_text(SWEEP)
    command = [sys.executable, str(file), str(RUNS), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=work, text=True)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_sweep_in_one_process_holds_no_more_files_at_its_end_than_at_its_begin(
    mode: str, trackd_home: Path, tmp_path: Path
) -> None:
    with sweep(mode, tmp_path) as trainer:
        assert trainer.stdout and trainer.stdin
        open_files = json.loads(trainer.stdout.readline())
        # A run that is not durable yet when the next begins keeps its head until it is, 32 of them at most.
        assert max(open_files) <= open_files[0] + 33 and open_files[-1] <= open_files[0] + 6, open_files
        couriers = [p for p in processes.of_home(trackd_home) if "trackd.courier" in " ".join(p.cmdline())]
        assert len(couriers) == 1
        wait_for(lambda: couriers[0].num_fds() <= 25, f"the courier to let go: {couriers[0].open_files()}", 30)
        trainer.communicate("\n", timeout=60)
    assert trainer.returncode == 0
    if mode == "online":
        hub = HubClient.of_settings(Settings(home=str(trackd_home)))
        assert len(hub.get("/projects/sweep/runs?limit=100")["runs"]) == RUNS

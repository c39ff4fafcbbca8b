"""What a script does with the SDK is what the hub answers: real courier, daemon, hub and HTTP."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trackd
from support import processes


def program(directory: Path, body: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    file = directory / "train.py"
    file.write_text(body)
    done = subprocess.run(
        [sys.executable, file], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def read(path: str, until: Callable[[Any], bool] = lambda run: run.state != "running", wait_s: float = 40) -> Any:
    """The run at the hub as soon as `until` holds."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            run = trackd.Api().run(path)
            if until(run):
                return run
            seen = f"{run.state} {run.summary}"
        except Exception as error:  # not there yet
            seen = repr(error)
        assert time.monotonic() < deadline, f"{path}: {seen}"
        time.sleep(0.05)


def test_a_run_as_the_hub_sees_it(trackd_home: Path, tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
import math, trackd
run = trackd.init(project="p", id="r", name="first", notes="n", tags=["a"], group="g", job_type="train", entity="me",
                  config={"lr": 0.1, "model": {"depth": 2}})
for i in range(100):
    run.log({"loss": 1 / (i + 1), "n": {"i": i}, "odd": math.nan if i % 2 else math.inf})
run.log({"late": 1}, step=1000)
run.log({"open": 1}, commit=False)
run.config.model["depth"] = 3
run.summary["best"] = {"loss": 0.25, "at": 7}
run.summary["best"]["at"] = 8
run.summary["a"] = {"b": 1, "c": 2}
run.summary["a"] = 5
run.summary["x"] = 5
run.summary["x"] = {"y": 1}
run.summary["loss"] = -1
del run.summary["n"]
run.name = "second"
run.tags += ("b",)
expected = run.summary.as_dict()
run.finish(wait_s=30)
assert run.url.endswith("/p/p/r/r") and run.project_url.endswith("/p/p"), run.url
assert run._lane.watermarks().committed == run._lane.watermarks().assigned
print(expected)
""",
    )
    run = read("p/r")
    assert (run.state, run.name, run.notes, sorted(run.tags), run.group, run.job_type) == (
        "finished", "second", "n", ["a", "b"], "g", "train"
    )  # fmt: skip
    assert dict(run.config) == {"lr": 0.1, "model": {"depth": 3}}
    rows = list(run.scan_history())
    assert [row["_step"] for row in rows] == [*range(100), 1000]
    assert rows[41]["loss"] == 1 / 42 and rows[41]["n.i"] == 41
    assert math.isnan(rows[1]["odd"]) and math.isinf(rows[2]["odd"])
    assert (rows[-1]["late"], rows[-1]["open"]) == (1, 1), "an uncommitted row is kept, at its step"
    summary = dict(run.summary)
    assert (summary["best"], summary["a"], summary["x"], summary["loss"]) == ({"loss": 0.25, "at": 8}, 5, {"y": 1}, -1)
    assert "n" not in summary and summary["late"] == 1
    local = eval(done.stdout, {"nan": math.nan, "inf": math.inf})
    assert {k: v for k, v in summary.items() if not k.startswith("_") and k != "odd"} == {
        k: v for k, v in local.items() if k != "odd"
    }, "the script and the hub agree on the summary"


@pytest.mark.parametrize(
    ("ending", "code", "state"),
    [
        ("", 0, "finished"),
        ("raise ValueError('x')", 1, "failed"),
        ("import sys; sys.exit(3)", 3, "failed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "killed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, None),
        ("import os; os._exit(0)", 0, None),
    ],
)
def test_states_and_rows_after_every_end(
    trackd_home: Path, tmp_path: Path, ending: str, code: int, state: str | None
) -> None:
    program(
        tmp_path,
        f"import trackd\nrun = trackd.init(project='p', id='r')\nfor i in range(500): run.log({{'a': i}})\n{ending}",
        code=code,
    )
    run = read("p/r", lambda run: run.state != "running" and run.last_step == 499)
    assert [row["a"] for row in run.scan_history()] == list(range(500))
    if state is not None:
        assert run.state == state
    else:
        assert run.state not in ("running", "finished") or code == 0


def test_fork_spawn_and_several_runs(trackd_home: Path, tmp_path: Path) -> None:
    program(
        tmp_path,
        """
import multiprocessing, os, trackd

def work(run, number):
    for i in range(50):
        run.log({f"c{number}": i})

if __name__ == "__main__":
    run = trackd.init(project="p", id="r")
    other = trackd.init(project="p", id="other", reinit="create_new")
    child = os.fork()
    if child == 0:
        work(run, 0)
        os._exit(0)
    spawned = multiprocessing.get_context("spawn").Process(target=work, args=(run, 1))
    spawned.start()
    os.waitpid(child, 0)
    spawned.join()
    assert spawned.exitcode == 0
    work(run, 2)
    work(other, 3)
""",
    )
    run = read("p/r", lambda run: run.state == "finished" and len(run.keys()) == 3)
    rows = list(run.scan_history())
    for key in ("c0", "c1", "c2"):
        assert [row[key] for row in rows if key in row] == list(range(50))
    other = read("p/other")
    assert [row["c3"] for row in other.scan_history()] == list(range(50)) and other.state == "finished"


def test_offline_needs_no_daemon_and_flush_sends_it_later_from_elsewhere(trackd_home: Path, tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
import trackd
run = trackd.init(project="p", id="r", mode="offline", config={"lr": 1}, dir=".")
for i in range(300):
    run.log({"a": i})
run.summary["best"] = 1
assert run.url is None
run.finish()
print(run.run_dir)
""",
    )
    run_dir = Path(done.stdout.strip())
    assert f"trackd flush {run_dir}" not in done.stdout
    assert not processes.daemons(trackd_home), "an offline run starts no daemon"
    moved = tmp_path / "moved"
    shutil.move(run_dir, moved)
    flush = [str(Path(sys.executable).with_name("trackd")), "flush", str(moved), "--wait", "60"]
    for _ in range(2):
        sent = subprocess.run(flush, capture_output=True, text=True, timeout=100, check=False)
        assert sent.returncode == 0, sent.stdout + sent.stderr
    run = read("p/r")
    assert [row["a"] for row in run.scan_history()] == list(range(300))
    assert (run.state, dict(run.config), run.summary["best"]) == ("finished", {"lr": 1}, 1)


def test_flush_returns_when_the_rows_are_durable(trackd_home: Path, tmp_path: Path) -> None:
    program(
        tmp_path,
        """
import trackd
run = trackd.init(project="p", id="r")
for i in range(1000):
    run.log({"a": i})
assert run.flush(durable=True, timeout_s=60)
marks = run._lane.watermarks()
assert marks.durable == marks.assigned, marks
""",
    )


def test_a_stopped_daemon_delays_nothing_and_loses_nothing(trackd_home: Path, tmp_path: Path) -> None:
    body = "import trackd\nrun = trackd.init(project='p', id='{0}')\nfor i in range(200): run.log({{'a': i}})\n"
    program(tmp_path, body.format("first") + "run.finish(wait_s=30)")
    (daemon,) = processes.daemons(trackd_home)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        done = program(tmp_path, body.format("second"))
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert done.stderr == "" or "Traceback" not in done.stderr
    run = read("p/second", lambda run: run.state == "finished" and run.last_step == 199)
    assert [row["a"] for row in run.scan_history()] == list(range(200))

"""`trackd doctor` beside a real daemon: it tells the truth about it, changes nothing, and what it advises helps."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import processes, scripts
from support.serving import free_port, ready, serving, wait_for
from trackd_daemon.cli.root import app
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from typer.testing import CliRunner

TRAINER = """
import os, signal, sys, trackd
run = trackd.init(project="p", id="left", settings={"silent": True})
print("ready", flush=True)
sys.stdin.readline()
for i in range(500):
    run.log({"x": i})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


def doctor(*, code: int = 0, **environ: str) -> dict[str, list[dict[str, Any]]]:
    """Its findings by check; within its time."""
    done = CliRunner().invoke(app, ["doctor", "--json"], env=environ)
    assert done.exit_code == code, done.output
    said = json.loads(done.stdout)
    assert said["seconds"] <= 3 and said["ok"] == (code == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in said["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def tree(home: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): ((status := path.lstat()).st_mtime_ns, status.st_size, status.st_mode)
        for path in [home, *home.rglob("*")]
    }


def couriers(home: Path) -> list[psutil.Process]:
    found = []
    for process in processes.of_home(home):
        with contextlib.suppress(psutil.Error):  # it ends while we look
            if "trackd.courier" in " ".join(process.cmdline()):
                found.append(process)
    return found


def levels(found: dict[str, list[dict[str, Any]]], *checks: str) -> list[str]:
    return [finding["level"] for check in checks for finding in found[check]]


def test_with_a_daemon_without_one_and_with_one_that_hangs(where: Instance, tmp_path: Path) -> None:
    said = scripts.trackd("doctor", cwd=tmp_path, COLUMNS="200")
    assert "none runs" in said and not processes.of_home(where.home)
    instance.spawn(where)
    (running,) = processes.daemons(where.home)
    found = doctor()
    assert levels(found, "directories", "lock", "socket", "daemon", "cookie", "formats", "unsent") == ["ok"] * 7
    assert (
        f"process {running.pid}" in found["lock"][0]["text"] and f"process {running.pid}" in found["daemon"][0]["text"]
    )
    running.send_signal(signal.SIGSTOP)
    found = doctor(code=1)
    assert (
        levels(found, "lock", "daemon") == ["ok", "trouble"] and f"kill {running.pid}" in found["daemon"][0]["advice"]
    )
    Path(instance.read_published(where).socket).unlink()  # type: ignore[union-attr]
    (finding,) = doctor(code=1)["daemon"]
    assert "is gone" in finding["text"]
    running.kill()
    running.wait()
    before = tree(where.home)
    found = doctor()
    assert levels(found, "lock", "daemon") == ["ok", "note"]
    assert tree(where.home) == before, "something was changed"
    assert not processes.of_home(where.home), "something was started"


def test_open_permissions_are_trouble_until_the_advice_is_taken(where: Instance, tmp_path: Path) -> None:
    instance.load_cookie(where)
    where.directory.chmod(0o755)
    where.cookie.chmod(0o644)
    found = doctor(code=1)
    assert levels(found, "directories", "cookie") == ["trouble", "trouble"]
    (finding,) = found["directories"]
    assert finding["advice"] == f"chmod go= {where.directory}"
    subprocess.run(shlex.split(finding["advice"]), check=True)
    assert "mode 644" in doctor(code=1)["cookie"][0]["text"]
    subprocess.run(["chmod", "go=", where.cookie], check=True)
    assert levels(doctor(), "directories", "cookie") == ["ok", "ok"]


def test_what_dead_processes_left_is_counted_and_flush_sends_it(where: Instance, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as trainer:
        assert trainer.stdin and trainer.stdout and trainer.stdout.readline() == b"ready\n"
        wait_for(lambda: ready(where), "the daemon that the courier starts")
        assert couriers(where.home)
        processes.end(couriers(where.home), grace_s=0)
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
        assert trainer.wait(60) == -signal.SIGKILL
    (left,) = doctor()["unsent"]
    assert left["level"] == "warning" and "a process that is gone left" in left["text"]
    count = int(left["text"].partition("left ")[2].split()[0].replace(",", ""))
    assert 500 <= count <= 520, "the rows, and the first and last words of the run"
    assert "`trackd flush`" in left["advice"]
    scripts.trackd("flush", cwd=tmp_path)
    assert [f["level"] for f in doctor()["unsent"]] == ["ok"]
    assert len(scripts.read("p/left", tmp_path)["rows"]) == 500


def test_the_log_of_a_stopped_daemon_and_an_upstream(where: Instance, tmp_path: Path) -> None:
    hub_home = tmp_path / "hub"
    hub_home.mkdir(mode=0o700)
    address, hub = f"127.0.0.1:{free_port()}", places.instance(hub_home)
    cookie = {"TRACKD_UPSTREAM": address, "TRACKD_UPSTREAM_COOKIE": str(hub.cookie)}
    with serving(hub_home, "--role", "hub", "--listen", address):
        wait_for(lambda: ready(hub), "hub")
        found = doctor(**cookie)
        assert levels(found, "upstream", "upstream cookie") == ["ok", "ok"]
        instance.load_cookie(where)
        wrong = doctor(code=1, **cookie | {"TRACKD_UPSTREAM_COOKIE": str(where.cookie)})
        assert "cookie" in wrong["upstream"][0]["text"] and wrong["upstream"][0]["level"] == "trouble"
    refused = doctor(code=1, **cookie)
    assert refused["upstream"][0]["text"] == f"{address}: Connection refused"

    program = TRAINER.replace("os.kill(os.getpid(), signal.SIGKILL)", "run.finish(wait_s=0)")
    subprocess.run(
        [sys.executable, "-c", program], input=b"\n", stdout=subprocess.DEVNULL, check=True,
        env=os.environ | cookie, cwd=tmp_path,
    )  # fmt: skip
    wait_for(lambda: not couriers(where.home), "the courier has handed everything on")
    processes.end(processes.daemons(where.home))
    assert not processes.of_home(where.home)
    waiting = doctor(code=1, **cookie)["unsent"][0]
    count = int(waiting["text"].partition("holds ")[2].split()[0])
    assert 500 <= count <= 520 and "`trackd flush` starts one" in waiting["advice"]

"""The commands about runs, as a user types them: real daemon, real files, exit codes."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
import trackd
import urllib3
from trackd_daemon.cli.root import app
from trackd_proto.local import places
from typer.testing import CliRunner


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def command(*words: str, **environ: str) -> Done:
    """In this process, which spares the interpreter's start; the daemon is a process of its own."""
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", **environ})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def ok(*words: str, **environ: str) -> str:
    done = command(*words, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*words: str, code: int = 1) -> str:
    done = command(*words)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.fixture
def logged(trackd_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A finished run, committed."""
    monkeypatch.chdir(tmp_path)
    run = trackd.init(project="digits", config={"lr": 0.5}, tags=["first"], settings={"silent": True})
    for i in range(500):
        run.log({"loss": 1 / (i + 1), "odd": float("nan") if i == 3 else i})
    run.finish(wait_s=60)
    return run


def test_looking_at_runs(logged: Any, tmp_path: Path) -> None:
    (project,) = json.loads(ok("ls", "--json"))
    assert (project["name"], project["runs"]) == ("digits", 1)
    (run,) = json.loads(ok("ls", "digits", "--where", "config.lr > 0.1", "--json"))
    assert (run["run_id"], run["config"], run["rows"]) == (logged.id, {"lr": 0.5}, 500)
    assert logged.id in ok("ls", "digits") and "digits" in ok("ls")
    assert json.loads(ok("ls", "digits", "-w", "config.lr > 1", "--json")) == []
    target = f"digits/{logged.id}"
    shown = json.loads(ok("show", target, "--json"))
    assert shown["state"] == "finished" and {k["key"] for k in shown["keys"]} == {"loss", "odd"}
    assert "lr" in ok("show", target)
    assert "at character" in refused("ls", "digits", "--where", "config.lr <")
    assert "no project 'none'" in refused("ls", "none")
    assert "no run" in refused("show", "digits/none")
    assert "names no run" in refused("show", "digits", code=2)


def test_export(logged: Any, tmp_path: Path) -> None:
    target = f"digits/{logged.id}"
    for kind in ("csv", "jsonl", "parquet"):
        ok("export", target, "-o", str(tmp_path / f"x.{kind}"))
        with duckdb.connect() as database:
            reader = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[kind]
            query = f"SELECT count(*), sum(loss) FROM {reader}('{tmp_path}/x.{kind}')"
            assert database.execute(query).fetchone() == (500, pytest.approx(sum(1 / (i + 1) for i in range(500))))
    assert len(ok("export", target, "--format", "jsonl", "-o", "-").splitlines()) == 500
    ok("export", target)
    assert (tmp_path / f"{logged.id}.csv").read_bytes() == (tmp_path / "x.csv").read_bytes()
    assert "no run" in refused("export", "digits/none", "-o", str(tmp_path / "none.csv"))
    assert "cannot write" in refused("export", target, "-o", str(tmp_path / "none" / "x.csv"))
    assert not (tmp_path / "none.csv").exists() and not list(tmp_path.glob(".*part"))


def test_changing_runs(logged: Any) -> None:
    target = f"digits/{logged.id}"
    ok("rename", target, "best one")
    ok("move", target, "kept")
    ok("rename", "kept", "archive")
    moved = f"archive/{logged.id}"
    assert json.loads(ok("show", moved, "--json"))["name"] == "best one"
    assert "--yes" in refused("delete", moved)
    assert json.loads(ok("show", moved, "--json"))["state"] == "finished", "nothing was deleted without --yes"
    ok("delete", moved, "--yes")
    assert "no run" in refused("show", moved)
    assert "no run" in refused("delete", moved, "--yes")


def test_verify(logged: Any) -> None:
    target = f"digits/{logged.id}"
    found = json.loads(ok("verify", target, "--json"))
    assert found["ok"] and found["writers"][0]["logged"] == found["writers"][0]["stored"] >= 501
    assert "ok" in ok("verify", target)
    # One record more than the hub has: a gap, with its name.
    note = Path(logged.run_dir) / "logged.json"
    content = json.loads(note.read_text())
    main = max(content["writers"], key=lambda w: content["writers"][w]["last_seq"])
    content["writers"][main]["last_seq"] += 2
    note.write_text(json.dumps(content))
    done = command("verify", target, "--json")
    assert done.returncode == 1 and not json.loads(done.stdout)["ok"]
    last = content["writers"][main]["last_seq"]
    assert f"records {last - 1} to {last} are not in the hub" in done.stdout
    # The same count and another hash: something was stored that was not logged.
    content["writers"][main]["last_seq"] -= 2
    content["writers"][main]["crc32"] ^= 1
    note.write_text(json.dumps(content))
    assert "rolling hash differs" in command("verify", target, "--json").stdout
    note.unlink()
    assert "give --dir" in refused("verify", target)


def test_open_prints_a_link_that_works_once(logged: Any) -> None:
    link = ok("open", f"digits/{logged.id}", "--print").strip()
    base, _, ticket = link.partition("#ticket=")
    assert base.endswith(f"/p/digits/r/{logged.id}")
    hub = base.partition("/p/")[0]
    for status in (200, 401):
        answer = urllib3.request("POST", f"{hub}/api/v1/session", json={"ticket": ticket})
        assert answer.status == status
    assert "no project" in refused("open", "none", "--print")
    over_ssh = command("open", SSH_CONNECTION="10.0.0.1 1 10.0.0.2 22", USER="ann", DISPLAY=":0")
    port = hub.rsplit(":", 1)[1]
    assert f"ssh -N -L {port}:127.0.0.1:{port} ann@10.0.0.2" in over_ssh.stderr
    assert over_ssh.stdout.startswith(f"{hub}/#ticket=")


def test_open_gives_the_browser_no_ticket_in_its_arguments(logged: Any, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    browser.chmod(0o755)
    link = ok("open", DISPLAY=":0", BROWSER=f"{browser} %s").strip()
    arguments = (tmp_path / "arguments").read_text()
    page = places.instance().directory / "open.html"
    assert arguments.strip() == page.as_uri() and "ticket" not in arguments
    assert link in page.read_text() and stat.S_IMODE(page.stat().st_mode) == 0o600


def test_the_installed_command_starts_the_hub_when_none_runs(trackd_home: Path) -> None:
    words = [str(Path(sys.executable).with_name("trackd")), "open", "--print"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and done.stdout.startswith("http://127.0.0.1:"), done.stderr

"""`init(resume=...)` as far as it needs no hub: what is asked, what is not, and how `auto` finds its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trackd
from support import written
from trackd import resuming
from trackd_proto.asking import Answer
from trackd_proto.records import tagged_int

FACTS = {
    "name": "calm otter", "notes": "n", "tags": ["a"], "group": "g", "last_step": 41,
    "config": {"lr": 0.1, "seed": 7, "huge": tagged_int(2**70)}, "summary": {"loss": 0.5, "best": {"at": 3}},
}  # fmt: skip
FOUND = Answer("found", run=msgspec.msgpack.encode(FACTS))
UNKNOWN = Answer("unknown", "no hub is running")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hub was asked; it answers as the fixture's `answer` says."""
    questions: list[str] = []

    def ask(settings: Any, home: Path, project: str, run_id: str, timeout_s: float = 10) -> Answer:
        questions.append(f"{project}/{run_id}")
        return ANSWERS[run_id]

    monkeypatch.setattr(resuming, "ask", ask)
    return questions


ANSWERS = {"there": FOUND, "missing": Answer("missing"), "unknown": UNKNOWN}


@pytest.mark.parametrize(
    ("resume", "run_id", "error", "parts"),
    [
        ("must", "missing", trackd.ResumeError, ["p/missing", "no run", 'resume="allow"']),
        ("never", "there", trackd.ResumeError, ["p/there", "already", 'resume="allow"']),
        ("must", "unknown", trackd.ResumeUnknownError, ["p/unknown", "no hub is running", 'mode="offline"']),
        ("never", "unknown", trackd.ResumeUnknownError, ["p/unknown", "no hub is running", 'resume="allow"']),
        ("must", None, ValueError, ["must", "id=", "TRACKD_RUN_ID"]),
    ],
)
def test_what_cannot_be_says_what_to_do(
    home: Path, asked: list[str], resume: str, run_id: str | None, error: type[Exception], parts: list[str]
) -> None:
    with pytest.raises(error) as caught:
        trackd.init(project="p", id=run_id, resume=resume)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert trackd.run is None and not written.runs(home), "nothing of a run that was refused is recorded"


@pytest.mark.parametrize("run_id", ["there", "missing", "unknown"])
@pytest.mark.parametrize("resume", ["allow", "auto", None])
def test_others_ask_nobody(home: Path, asked: list[str], resume: str | None, run_id: str) -> None:
    trackd.init(project="p", id=run_id, resume=resume).finish()
    assert asked == [] and written.only(home).main["resume"] == resume


@pytest.mark.parametrize(("resume", "run_id"), [("must", "missing"), ("never", "there")])
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_offline_asks_nobody(home: Path, asked: list[str], mode: str, resume: str, run_id: str) -> None:
    with trackd.init(project="p", id=run_id, resume=resume, mode=mode) as run:
        assert (run.resumed, run.starting_step, run.step) == (False, 0, 0)
    assert asked == []
    if mode == "offline":
        assert written.only(home).main["resume"] == resume, "the wish stands in START for `trackd flush`"


def test_never_on_a_new_run_begins_it(home: Path, asked: list[str]) -> None:
    with trackd.init(project="p", id="missing", resume="never") as run:
        assert not run.resumed and run.starting_step == 0
    assert asked == ["p/missing"]
    trackd.init(project="p", resume="never").finish()
    assert asked == ["p/missing"], "a new random id needs no question"


def test_must_goes_on_with_what_the_hub_has(home: Path, asked: list[str]) -> None:
    with trackd.init(project="p", id="there", resume="must", config={"lr": 0.2, "new": 1}) as run:
        assert asked == ["p/there"]
        assert (run.resumed, run.starting_step, run.step) == (True, 42, 42)
        assert (run.name, run.notes, run.tags, run.group) == ("calm otter", "n", ("a",), "g")
        assert run.config.as_dict() == {"lr": 0.2, "seed": 7, "huge": 2**70, "new": 1}, "new values win, old ones stay"
        assert run.summary.as_dict() == {"loss": 0.5, "best": {"at": 3}}
        run.log({"loss": 0.25})
        assert run.summary["loss"] == 0.25 and run.summary["best"]["at"] == 3 and run.step == 43
        del run.summary["best"]
        assert run.summary.as_dict() == {"loss": 0.25}
        run.log({"loss": 0.2}, step=7)
        run.log({"loss": 0.1}, step=100)
        assert run.step == 100, "an explicit step is one already"
    made = written.only(home)
    assert made.config == {"lr": 0.2, "new": 1}, "what the hub has is not sent again"
    assert made.rows == [(0, {"loss": 0.25}), (7, {"loss": 0.2}), (100, {"loss": 0.1})]
    assert made.main["is_name_generated"] is True and made.main["tags"] == []


def test_own_fields_win_over_the_hubs(home: Path, asked: list[str]) -> None:
    with trackd.init(project="p", id="there", resume="must", name="mine", tags=["b"], notes="m", group="h") as run:
        assert (run.name, run.notes, run.tags, run.group) == ("mine", "m", ("b",), "h")
    assert written.only(home).main["is_name_generated"] is False


def test_no_answer_in_time(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho $$ > pid\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(resuming.ask, "__defaults__", (0.5,))
    begin = time.monotonic()
    with pytest.raises(trackd.ResumeUnknownError, match="no answer"):
        trackd.init(project="p", id="r", resume="must")
    assert 0.5 <= time.monotonic() - begin < 5
    with pytest.raises(ProcessLookupError):  # it was started, and is gone
        os.kill(int(Path("pid").read_text()), 0)


def test_a_handler_of_sigchld_hears_of_its_own_children_only(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What asks the hub here ends a child of the user's meanwhile; a wait in the handler must not see the asker."""
    seen: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(os.waitpid(-1, os.WNOHANG)[0]))
    asker = tmp_path / "asker"
    asker.write_text(
        '#!/bin/sh\n[ -n "$MINE" ] && kill $MINE &&\n'
        "while ! grep -q '^State:.Z' /proc/$MINE/status; do sleep 0.01; done\nexit 0\n"
    )
    asker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(asker))
    mine = subprocess.Popen(["sleep", "60"])
    try:
        for told, expected in (("", []), (str(mine.pid), [mine.pid])):
            monkeypatch.setenv("MINE", told)
            with pytest.raises(trackd.ResumeUnknownError, match="failed"):
                trackd.init(project="p", id="r", resume="must")
            assert seen == expected
    finally:
        signal.signal(signal.SIGCHLD, before)
        mine.kill()


# -- auto -------------------------------------------------------------------------------------------------------------

TRAINER = (
    written.PRELUDE
    + """
import os, signal, sys
run = trackd.init(project=sys.argv[1], resume="auto")
run.log({"x": 1})
print(run.id, run.resumed, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "raised":
    raise ValueError
if sys.argv[2] == "waits":
    sys.stdin.read()
"""
)


def train(project: str, ending: str, **environ: str) -> tuple[str, bool]:
    """(id of the run, whether it was resumed) of one process."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINER, project, ending], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == {"killed": -9, "raised": 1, "finished": 0}[ending], done.stderr
    run_id, resumed = done.stdout.split()
    return run_id, resumed == "True"


def test_auto_goes_on_until_it_ends_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, resumed = train("p", "killed")
    assert not resumed
    assert train("other", "finished")[0] != first, "another project, another run"
    assert train("p", "raised") == (first, True)
    assert train("p", "finished") == (first, True)
    assert train("p", "killed")[1] is False
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert train("p", "finished", TRACKD_DIR=str(Path.cwd()))[1] is False, "another directory, another run"
    private = [path for path in (home / "resume").rglob("*") if path.stat().st_mode & 0o077]
    assert not private, "nobody else reads them"


def test_auto_leaves_a_run_alone_that_is_going_on(home: Path) -> None:
    command = [sys.executable, "-c", TRAINER, "p", "waits"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as live:
        assert live.stdout is not None
        going = live.stdout.readline().split()[0]
        assert train("p", "finished") != (going, True)
        live.kill()
        live.wait()
    assert train("p", "finished") == (going, True)


def test_auto_takes_the_id_of_the_job(home: Path) -> None:
    job = {"SLURM_JOB_ID": "812"}
    first, resumed = train("p", "killed", **job)
    assert first.startswith("slurm-812-") and not resumed
    for path in (home / "resume").rglob("*.json"):
        path.unlink()  # requeued on a machine that does not share the home
    again = train("p", "finished", **job, SLURM_RESTART_COUNT="1")
    assert again == (first, True)
    assert train("p", "finished", **job) == (f"{first}-2", False), "a second run of the same job is one of its own"


def test_auto_with_a_state_that_cannot_be_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    (home / "resume").write_text("no directory")
    trackd.init(project="p", resume="auto").finish()
    error = capsys.readouterr().err
    assert "cannot note the id" in error and "init(id=...)" in error
    assert written.only(home).rows == []


# -- resume_from, fork_from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"resume_from": "there"}, ["resume_from", "?_step=100"]),
        ({"fork_from": "there?_step=-1"}, ["fork_from", "?_step=100"]),
        ({"fork_from": "there?loss=1"}, ["fork_from", "?_step=100"]),
        ({"fork_from": "there?_step=1", "resume_from": "there?_step=1"}, ["resume_from, fork_from"]),
        ({"fork_from": "there?_step=1", "resume": "must"}, ["fork_from, resume"]),
        ({"fork_from": "there?_step=1", "id": "there"}, ["an id of its own", "resume_from="]),
        ({"resume_from": "there?_step=1", "id": "other"}, ["id:", "'there'", "'other'"]),
    ],
)
def test_a_moment_that_means_nothing(home: Path, asked: list[str], more: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|goes on") as caught:
        trackd.init(project="p", **more)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert asked == [] and not written.runs(home)


@pytest.mark.parametrize(
    ("more", "error", "parts"),
    [
        ({"resume_from": "missing?_step=3"}, trackd.ResumeError, ["resume_from", "p/missing", "trackd ls"]),
        ({"fork_from": "missing?_step=3"}, trackd.ResumeError, ["fork_from", "p/missing"]),
        ({"fork_from": "missing?_step=3", "id": "x"}, trackd.ResumeError, ["fork_from", "p/missing"]),
        ({"fork_from": "there?_step=3", "id": "also"}, trackd.ResumeError, ["p/also", "already"]),
        ({"fork_from": "unknown?_step=3"}, trackd.ResumeUnknownError, ["p/unknown", "no hub is running"]),
        ({"resume_from": "unknown?_step=3"}, trackd.ResumeUnknownError, ["p/unknown", 'mode="offline"']),
    ],
)
def test_a_moment_that_the_hub_does_not_have(
    home: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, more: dict[str, str], error: type[Exception],
    parts: list[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(ANSWERS, "also", FOUND)
    with pytest.raises(error) as caught:
        trackd.init(project="p", **more)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert trackd.run is None and not written.runs(home), "nothing of a run that was refused is recorded"


def test_resume_from_goes_on_behind_a_step(home: Path, asked: list[str]) -> None:
    with trackd.init(project="p", resume_from="there?_step=20", config={"lr": 0.2}) as run:
        assert asked == ["p/there"]
        assert (run.id, run.resumed, run.starting_step, run.step) == ("there", True, 21, 21)
        assert (run.name, run.config["seed"], run.config["lr"], run.summary["loss"]) == ("calm otter", 7, 0.2, 0.5)
        run.log({"loss": 0.1})
        assert run.step == 22
    made = written.only(home)
    assert made.main["branch"] == {"run_id": "there", "step": 20} and made.main["resume"] is None
    assert made.config == {"lr": 0.2} and made.rows == [(0, {"loss": 0.1})]


def test_fork_from_begins_a_run_of_its_own(home: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with trackd.init(project="p", fork_from="there?_step=50", config={"lr": 0.2}) as run:
        assert asked == ["p/there"], "a new random id needs no question"
        assert run.id != "there" and (run.resumed, run.starting_step, run.step) == (False, 51, 51)
        assert run.config.as_dict() == {"lr": 0.2, "seed": 7, "huge": 2**70}, "the other's config, own values win"
        assert run.summary.as_dict() == {} and run.name != "calm otter" and run.notes == ""
    assert "up to step 41" in capsys.readouterr().err, "a step that is still to come is allowed, and said"
    assert written.only(home).main["branch"] == {"run_id": "there", "step": 50}


def test_offline_a_moment_is_noted_for_flush(home: Path, asked: list[str]) -> None:
    with trackd.init(project="p", id="mine", fork_from="there?_step=9", mode="offline") as run:
        assert (run.id, run.resumed, run.step) == ("mine", False, 10)
    assert asked == [] and written.only(home).main["branch"] == {"run_id": "there", "step": 9}

"""`init(resume=...)` against a real hub: what is asked, what a run that goes on looks like afterwards."""

import json
from pathlib import Path

from support import processes, scripts

TRAINER = """
import os, signal, sys, trackd
resume, run_id, begin, end, how = sys.argv[1:6]
run = trackd.init(project="p", id=run_id, resume=resume, config={"lr": 0.1})
print("resumed", run.resumed, run.starting_step, run.step, run.name, flush=True)
for step in range(int(begin), int(end)):
    run.log({"loss": step + 0.5 * (int(begin) > 0)}, step=step)
run.flush(durable=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
run.finish(wait_s=30)
"""


def train(
    resume: str, run_id: str, begin: int, end: int, how: str, cwd: Path, *, code: int | None = None, upstream: str = ""
) -> str:
    """What a trainer printed."""
    expected = (-9 if how == "killed" else 0) if code is None else code
    arguments = (resume, run_id, str(begin), str(end), how)
    done = scripts.python(TRAINER, *arguments, cwd=cwd, code=expected, TRACKD_UPSTREAM=upstream)
    return done.stdout + done.stderr


def test_must_and_never_know_what_the_hub_knows(trackd_home: Path, tmp_path: Path) -> None:
    asked = train("must", "r", 0, 1, "finished", tmp_path, code=1)
    assert "ResumeError" in asked and "there is no run p/r" in asked
    fresh = train("never", "r", 0, 3, "finished", tmp_path)
    assert fresh.startswith("resumed False 0 0 ")
    name = scripts.read("p/r", tmp_path)["name"]
    assert "there is a run p/r already" in train("never", "r", 0, 1, "finished", tmp_path, code=1)
    assert train("must", "r", 3, 5, "finished", tmp_path).startswith(f"resumed True 3 3 {name}")
    train("allow", "r", 5, 6, "finished", tmp_path)
    found = scripts.read("p/r", tmp_path)
    assert [row["_step"] for row in found["rows"]] == list(range(6))
    assert found["name"] == name, "a generated name does not replace the one that the run has"
    assert (found["config"], found["state"]) == ({"lr": 0.1}, "finished")


def test_a_hub_that_cannot_be_asked(trackd_home: Path, tmp_path: Path) -> None:
    said = train("must", "r", 0, 1, "finished", tmp_path, code=1, upstream="127.0.0.1:9")
    assert "ResumeUnknownError" in said and "upstream_cookie" in said
    assert not processes.daemons(trackd_home), "nothing was begun"


OFFLINE = """
import sys, trackd
with trackd.init(project="p", id=sys.argv[1], resume=sys.argv[2], mode="offline", dir=sys.argv[3]) as run:
    run.log({"loss": 1.0})
"""


def test_a_wish_of_an_offline_run_is_checked_when_it_is_sent(trackd_home: Path, tmp_path: Path) -> None:
    for run_id, resume in (("a", "never"), ("a", "must"), ("b", "must"), ("a", "never")):
        scripts.python(OFFLINE, run_id, resume, str(tmp_path), cwd=tmp_path)
    assert not processes.daemons(trackd_home), "nobody was asked"
    report = json.loads(scripts.trackd("flush", str(tmp_path), "--json", cwd=tmp_path))
    assert report["committed"], "data is never refused"
    assert len(report["conflicts"]) == 2
    absent = next(text for text in report["conflicts"] if "must" in text)
    present = next(text for text in report["conflicts"] if "never" in text)
    assert "p/b" in absent and "no such run" in absent and "p/a" in present and "already" in present
    assert len(scripts.read("p/a", tmp_path)["rows"]) == 3 and len(scripts.read("p/b", tmp_path)["rows"]) == 1
    again = json.loads(scripts.trackd("flush", str(tmp_path), "--json", cwd=tmp_path))
    assert again["committed"] and again["conflicts"] == [], "what is there is its own data"


ATTEMPT = """
import json, sys, trackd
run = trackd.Api().run("p/k")
first = [row["loss"] for row in run.scan_history(attempt=1)]
sampled = [row["loss"] for row in run.history(samples=1000, pandas=False, attempt=2)]
attempts = [(a.number, a.state, a.first_step, a.last_step, a.superseded_from) for a in run.attempts]
print(json.dumps({"first": first, "sampled": sampled, "attempts": attempts, "last_step": run.last_step}))
"""


def test_killed_and_begun_again_from_a_checkpoint_is_one_curve(trackd_home: Path, tmp_path: Path) -> None:
    train("allow", "k", 0, 60, "killed", tmp_path)
    train("allow", "k", 40, 50, "killed", tmp_path)
    train("allow", "k", 45, 70, "finished", tmp_path)
    scripts.trackd("flush", "--all", cwd=tmp_path)
    found = scripts.read("p/k", tmp_path)
    steps = [row["_step"] for row in found["rows"]]
    assert steps == list(range(70)) and found["state"] == "finished"
    assert [row["loss"] for row in found["rows"]] == [*range(40), *(step + 0.5 for step in range(40, 70))]
    kept = json.loads(scripts.python(ATTEMPT, cwd=tmp_path).stdout)
    assert kept["first"] == list(range(60)), "what was abandoned stays readable"
    assert kept["sampled"] == [step + 0.5 for step in range(40, 50)]
    assert kept["last_step"] == 69
    assert kept["attempts"] == [[1, "killed", 0, 59, 40], [2, "killed", 40, 49, 45], [3, "finished", 45, 69, None]]

"""A run between `init()` and the end of the program: logging, ending, other processes."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import trackd
from support import written
from trackd import finishing, messages, silence
from trackd.lane import Watermarks
from trackd_proto.spool import Links


def test_log_is_the_lanes_own_method(home: Path) -> None:
    run = trackd.init()
    assert run.log == run._lane.row, "no frame of ours on the hot path"
    assert trackd.log == run.log


def test_rows_config_and_summary_are_recorded(home: Path) -> None:
    run = trackd.init(config={"lr": 0.1, "model": {"depth": 2}})
    for i in range(3):
        run.log({"loss": 1 / (i + 1), "nested": {"a": i}})
    assert run.step == 3
    run.log({"late": 1}, step=100)
    trackd.log({"module": 1})
    trackd.config.model["depth"] = 3
    run.summary["best"] = {"loss": 0.25}
    assert trackd.summary["loss"] == 1 / 3 and run.summary["nested"]["a"] == 2
    run.finish()
    found = written.only(home)
    assert [step for step, _ in found.rows] == [0, 1, 2, 100, 100]
    assert found.config == {"lr": 0.1, "model": {"depth": 3}} and found.summary == {"best.loss": 0.25}
    assert found.state == "finished" and found.closed == 1


def test_wrong_arguments_of_log_raise(home: Path) -> None:
    run = trackd.init()
    for wrong in (5, None, [("a", 1)]):
        with pytest.raises(TypeError, match="log"):
            run.log(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="step"):
        run.log({"a": 1}, step="x")  # type: ignore[arg-type]
    run.log({"a": math.nan})
    run.finish()
    assert len(written.only(home).rows) == 1


def test_a_sweep_that_nobody_serves_holds_few_files(home: Path) -> None:
    kept, open_files = [], []
    for trial in range(60):
        with trackd.init() as run:
            run.log({"trial": trial})
        kept.append(run)
        open_files.append(psutil.Process().num_fds())
    # Of an ended run the head stays mapped as long as flush() could be asked about it; nothing of its chunks does.
    assert max(open_files) <= open_files[0] + 33, open_files
    assert len(written.runs(home)) == 60


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "state"), [(None, "finished"), (0, "finished"), (1, "failed"), (255, "failed")])
def test_finish(home: Path, code: int | None, state: str) -> None:
    run = trackd.init()
    run.finish(code)
    run.finish(5)
    assert written.only(home).exits == [
        {"state": state, "exit_code": code or 0, "cause": f"exit code {code}" if code else None}
    ]
    assert trackd.run is None and run.is_finished


def test_finish_checks_its_arguments(home: Path) -> None:
    run = trackd.init()
    with pytest.raises(TypeError, match="exit_code"):
        run.finish("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="wait_s"):
        run.finish(wait_s="1")  # type: ignore[arg-type]
    assert not run.is_finished


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [(ValueError("x"), "failed", 1), (SystemExit(0), "finished", 0), (KeyboardInterrupt(), "killed", 130)],
)
def test_an_exception_in_a_with_is_recorded_and_raised_again(
    home: Path, error: BaseException, state: str, code: int
) -> None:
    with pytest.raises(type(error)) as caught, trackd.init() as run:
        run.log({"a": 1})
        raise error
    assert caught.value is error and run.is_finished
    found = written.only(home)
    assert (found.state, found.exits[0]["exit_code"], len(found.rows)) == (state, code, 1)


def test_an_exception_that_the_outer_with_catches_ends_nothing(home: Path) -> None:
    with trackd.init() as run:
        with pytest.raises(ValueError), trackd.init():
            raise ValueError
        assert not run.is_finished
    assert written.only(home).state == "finished"


def test_rows_after_the_end_are_counted_and_warned_of_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trackd.init()
    captured, module = run.log, trackd.log
    run.finish()
    capsys.readouterr()
    for log in (captured, module, run.log, trackd.log):
        log({"a": 1})
    assert capsys.readouterr().err.count("is finished") == 1
    found = written.only(home)
    assert (found.rows, found.refused) == ([], 4)


def test_strict_raises_after_the_end(home: Path) -> None:
    run = trackd.init(settings={"strict": True})
    captured = run.log
    run.finish()
    for log in (captured, run.log, trackd.log):
        with pytest.raises(trackd.UsageError, match="finished"):
            log({"a": 1})


def test_before_init_everything_says_what_to_do(home: Path) -> None:
    for use in (
        lambda: trackd.log({"a": 1}),
        lambda: trackd.config.lr,
        lambda: trackd.config["lr"],
        lambda: trackd.config.update({"lr": 1}),
        lambda: setattr(trackd.config, "lr", 1),
        lambda: trackd.summary["x"],
        lambda: trackd.summary.update({"x": 1}),
    ):
        with pytest.raises(trackd.UsageError, match=r"call trackd.init\(\) first"):
            use()
    assert trackd.run is None and not hasattr(trackd.config, "_private")
    assert repr(trackd.config) and trackd.finish() is None  # type: ignore[func-returns-value]


def test_names_imported_before_init_work_afterwards(home: Path) -> None:
    from trackd import config, log, summary

    run = trackd.init()
    log({"a": 1})
    config.lr = 2
    config["depth"] = 3
    summary["best"] = 4
    run.finish()
    found = written.only(home)
    assert (found.rows, found.config, found.summary) == ([(0, {"a": 1})], {"lr": 2, "depth": 3}, {"best": 4})


def test_two_runs_end_in_any_order_and_keep_their_rows(home: Path) -> None:
    first = trackd.init(id="one")
    second = trackd.init(id="two", reinit="create_new")
    first.log({"a": 1})
    second.log({"b": 1})
    first.finish()
    assert trackd.run is None
    second.log({"b": 2})
    second.finish()
    found = written.runs(home)
    assert [row for _, row in found["one"].rows] == [{"a": 1}]
    assert [row for _, row in found["two"].rows] == [{"b": 1}, {"b": 2}]


def test_threads_share_a_run(home: Path) -> None:
    run = trackd.init()

    def work(number: int) -> None:
        for i in range(200):
            run.log({f"t{number}": i})
            run.config[f"k{number}"] = 1
            run.summary[f"s{number}"] = 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    found = written.only(home)
    assert len(found.rows) == 800 and len({step for step, _ in found.rows}) == 800
    assert found.config == {f"k{n}": 1 for n in range(4)} and found.summary == {f"s{n}": 1 for n in range(4)}


# -- what finish() says -----------------------------------------------------------------------------------------------


class FakeLane(silence.NullLane):
    """A lane with watermarks of our choice."""

    def __init__(self, marks: Watermarks, links: Links | None = None) -> None:
        self.marks = marks
        self.known = links
        self.waits: list[str] = []

    def watermarks(self) -> Watermarks:
        return self.marks

    def links(self) -> Links | None:
        return self.known

    def wait(self, level: str, timeout_s: float) -> bool:
        self.waits.append(level)
        return getattr(self.marks, level) >= self.marks.assigned


LINKS = Links("http://127.0.0.1:1/p/a/r/b", "http://127.0.0.1:1/p/a", "ticket1")


@pytest.mark.parametrize(
    ("marks", "links", "has_hub", "parts"),
    [
        (Watermarks(10, 10, 10, 10, 0), LINKS, True, ["all of its 10 records are in the hub", "#ticket=ticket1"]),
        (
            Watermarks(10, 10, 10, 4, 0),
            LINKS,
            True,
            ["6 of 10 records", "on their way", "trackd flush --all", "/p/a/r/b"],
        ),
        (Watermarks(10, 3, 3, 0, 0), None, True, ["7 of 10 records wait in", "trackd flush --all"]),
        (Watermarks(10, 10, 10, 10, 2), None, True, ["warning: 2 records", "lost"]),
        (Watermarks(10, 10, 10, 0, 0), None, False, ["pip install 'trackd[hub]'", "trackd open"]),
    ],
)
def test_the_summary_line(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    marks: Watermarks,
    links: Links | None,
    has_hub: bool,
    parts: list[str],
) -> None:
    monkeypatch.setattr(finishing, "has_hub", lambda: has_hub)
    run = trackd.init(name="calm-otter")
    real = run._lane
    run._lane = FakeLane(marks, links)
    run.finish()
    real.close()
    err = capsys.readouterr().err
    assert all(part in err for part in ["calm-otter", *parts]), err


def test_quiet_prints_links_and_silent_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting, expected in (("quiet", True), ("silent", False)):
        run = trackd.init(settings={setting: True}, reinit="create_new")
        real, run._lane = run._lane, FakeLane(Watermarks(1, 1, 1, 1, 0), LINKS)
        run.finish()
        real.close()
        err = capsys.readouterr().err
        assert ("ticket1" in err) is expected and "records" not in err
    messages.configure(silent=False, quiet=False)


def test_an_ephemeral_place_waits_while_the_hub_takes_records(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing.ephemeral, "is_ephemeral", lambda _home: True)

    class Moving(FakeLane):
        def wait(self, level: str, timeout_s: float) -> bool:
            if level == "committed":
                self.waits.append(level)
                self.marks = self.marks._replace(committed=min(10, self.marks.committed + 5))
                return self.marks.committed == 10
            return True

    class Stuck(FakeLane):
        def wait(self, level: str, timeout_s: float) -> bool:
            self.waits.append(level)
            return level == "durable"

    for lane, waits in (
        (Moving(Watermarks(10, 10, 10, 0, 0)), ["committed", "committed"]),
        (Stuck(Watermarks(10, 10, 10, 0, 0)), ["durable", "committed"]),
    ):
        run = trackd.init(settings={"upstream": "hub.invalid:1"}, reinit="create_new")
        real, run._lane = run._lane, lane
        run.finish()
        real.close()
        assert lane.waits == waits


def test_url_waits_once_and_gives_what_the_hub_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackd.Run.links.__globals__["time"], "sleep", lambda _s: None)
    monkeypatch.setitem(trackd.Run.links.__globals__, "_URL_WAIT_S", 0.05)
    run = trackd.init()
    assert run.url is None and run.url_waited
    run._lane, real = FakeLane(Watermarks(1, 1, 1, 1, 0), LINKS), run._lane
    assert (run.url, run.project_url) == (LINKS.run_url, LINKS.project_url)
    run._lane = real


# -- other processes --------------------------------------------------------------------------------------------------


def test_copies_are_the_run_itself(home: Path) -> None:
    run = trackd.init()
    assert copy.copy(run) is run and copy.deepcopy({"run": run})["run"] is run
    assert pickle.loads(pickle.dumps(run)) is run


def test_a_forked_child_writes_its_own_rows_config_and_summary(home: Path) -> None:
    run = trackd.init(config={"lr": 1})
    run.log({"parent": 1})
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.log({"child": 1})
            run.config.child = 2
            run.summary["child"] = 3
            trackd.log({"child": 2})
            run.finish()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    run.log({"parent": 2})
    assert not run.is_finished
    run.finish()
    found = written.only(home)
    assert sorted(str(row) for _, row in found.rows) == [
        "{'child': 1}", "{'child': 2}", "{'parent': 1}", "{'parent': 2}"
    ]  # fmt: skip
    assert found.config == {"lr": 1, "child": 2} and found.summary == {"child": 3}
    assert [start["writer"]["role"] for start in found.starts] == ["main", "fork"]
    assert len(found.exits) == 1 and found.closed == 2, "the child's finish() ends only its own part"


def test_init_in_a_forked_child_is_a_run_of_its_own(home: Path) -> None:
    parent = trackd.init(id="parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = trackd.init(id="child")
            own.log({"a": 1})
            own.finish()
            code = 0 if own is not parent else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    parent.finish()
    found = written.runs(home)
    assert {run_id: run.state for run_id, run in found.items()} == {"parent": "finished", "child": "finished"}


SPAWN = f"""
{written.PRELUDE}
import multiprocessing

def work(run, number):
    run.log({{"child": number}})
    run.config.update({{f"c{{number}}": run.config.lr}})
    run.summary[f"s{{number}}"] = run.summary["best"]
    assert trackd.run is run

if __name__ == "__main__":
    run = trackd.init(id="spawned", config={{"lr": 0.5}})
    run.summary["best"] = 7
    context = multiprocessing.get_context("METHOD")
    children = [context.Process(target=work, args=(run, n)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    run.log({{"parent": 1}})
    run.finish()
"""


@pytest.mark.parametrize(
    "method", [m for m in ("spawn", "forkserver", "fork") if m in multiprocessing.get_all_start_methods()]
)
def test_a_run_passed_to_other_processes(home: Path, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWN.replace("METHOD", method))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = written.only(home)
    assert sorted(str(row) for _, row in found.rows) == ["{'child': 0}", "{'child': 1}", "{'parent': 1}"]
    assert found.config == {"lr": 0.5, "c0": 0.5, "c1": 0.5} and found.summary == {"best": 7, "s0": 7, "s1": 7}
    assert len({start["attempt"] for start in found.starts}) == 1 and len(found.exits) == 1
    assert found.state == "finished"

"""However a program ends, the run's state is right and no row is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import written

LOGS = """
run = trackd.init(id="r")
for i in range(10):
    run.log({"a": i})
"""


def start(home: Path, body: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "TRACKD_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", written.PRELUDE + body],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(program: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = program.communicate(timeout=60)
    return program.returncode, err


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("ending", "returncode", "state", "exit_code", "cause"),
    [
        ("", 0, "finished", 0, None),
        ("import sys; sys.exit()", 0, "finished", 0, None),
        ("import sys; sys.exit(0)", 0, "finished", 0, None),
        ("import sys; sys.exit(3)", 3, "failed", 3, "exit code 3"),
        ("exit(3)", 3, "failed", 3, "exit code 3"),
        ("import sys; sys.exit('no data')", 1, "failed", 1, "no data"),
        ("raise ValueError('bad lr')", 1, "failed", 1, "ValueError: bad lr"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "killed", 130, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "killed", 130, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "killed", 143, "SIGTERM"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", -signal.SIGHUP, "killed", 129, "SIGHUP"),
        ("run.finish(); raise ValueError", 1, "finished", 0, None),
        ("run.finish(2)", 0, "failed", 2, "exit code 2"),
        ("with run: raise SystemExit(4)", 4, "failed", 4, "exit code 4"),
    ],
)
def test_states(place: Path, ending: str, returncode: int, state: str, exit_code: int, cause: str | None) -> None:
    code, err = end(start(place, LOGS + ending))
    assert code == returncode, err
    found = written.only(place)
    (body,) = found.exits
    assert (body["state"], body["exit_code"], body["cause"]) == (state, exit_code, cause)
    # What Python does not tell is left to the courier, which may hear it from the kernel.
    assert body.get("is_assumed", False) == (ending == "" or "sys.exit" in ending or ending.startswith("exit"))
    trace = body.get("traceback") or ""
    assert ("ValueError: bad lr" in trace and trace.startswith("Traceback")) == ("bad lr" in ending)
    assert [row for _, row in found.rows] == [{"a": i} for i in range(10)]


def test_os_exit_leaves_the_rows_and_no_state(place: Path) -> None:
    code, _ = end(start(place, LOGS + "import os; os._exit(5)"))
    found = written.only(place)
    assert (code, found.exits, len(found.rows)) == (5, [], 10), "its end is for the courier to find out"


def test_the_traceback_is_still_printed_and_another_hook_still_called(place: Path) -> None:
    hook = "import sys; sys.excepthook = lambda kind, *_: print('my hook', kind.__name__, file=sys.stderr)\n"
    _, err = end(start(place, LOGS + "raise ValueError('bad lr')"))
    assert "Traceback" in err and "ValueError: bad lr" in err
    _, err = end(start(place / "second", hook + LOGS + "raise ValueError('bad lr')"))
    assert "my hook ValueError" in err
    assert written.only(place / "second").state == "failed"


def test_every_open_run_gets_its_state(place: Path) -> None:
    end(start(place, "a = trackd.init(id='a')\nb = trackd.init(id='b', reinit='create_new')\nraise ValueError"))
    assert {run_id: run.state for run_id, run in written.runs(place).items()} == {"a": "failed", "b": "failed"}


def test_an_exception_in_a_thread_is_not_the_programs(place: Path) -> None:
    body = "import threading\ndef f(): raise ValueError\nt = threading.Thread(target=f)\nt.start()\nt.join()\n"
    code, _ = end(start(place, LOGS + body))
    assert (code, written.only(place).state) == (0, "finished")


def test_sigterm_from_outside(place: Path) -> None:
    program = start(place, LOGS + "print('ready', flush=True)\nimport time\nwhile True: time.sleep(60)")
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    code, _ = end(program)
    found = written.only(place)
    assert (code, found.state, found.exits[0]["exit_code"]) == (-signal.SIGTERM, "killed", 143)
    assert len(found.rows) == 10


def test_sigterm_inside_log_writes_the_state_beside(place: Path) -> None:
    body = """
run = trackd.init(id="r")
import os, signal
class Bomb:
    def __repr__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return "never"
run.log({"a": 1})
run.log({"bomb": Bomb()})
"""
    code, _ = end(start(place, body))
    found = written.only(place)
    assert (code, found.state) == (-signal.SIGTERM, "killed")
    assert found.rows[0] == (0, {"a": 1})


@pytest.mark.parametrize("handler", ["lambda *_: sys.exit(7)", "signal.SIG_IGN"], ids=["own handler", "ignored"])
def test_a_sigterm_that_somebody_handles_is_left_alone(place: Path, handler: str) -> None:
    body = f"""
import os, signal, sys
signal.signal(signal.SIGTERM, {handler})
before = signal.getsignal(signal.SIGTERM)
{LOGS}
assert signal.getsignal(signal.SIGTERM) is before
os.kill(os.getpid(), signal.SIGTERM)
"""
    code, err = end(start(place, body))
    expected = (7, "failed") if "exit" in handler else (0, "finished")
    assert (code, written.only(place).state) == expected, err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_in_a_batch_job_a_signal_of_the_scheduler_is_a_preemption(place: Path, name: str) -> None:
    number = getattr(signal, name)
    body = f"import os, signal\nos.environ['SLURM_JOB_ID'] = '812'\n{LOGS}os.kill(os.getpid(), signal.{name})"
    code, err = end(start(place, body))
    assert code == -number, err
    expected = ("preempted", 128 + number, f"{name} in SLURM job 812: preemption, time limit or cancellation")
    (said,) = written.only(place).exits
    assert (said["state"], said["exit_code"], said["cause"]) == expected


def test_outside_of_batch_jobs_sigusr1_is_the_programs_own(place: Path) -> None:
    body = LOGS + "import signal\nassert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL"
    code, err = end(start(place, body))
    assert code == 0, err


def test_sigterm_is_given_back_after_the_last_run(place: Path) -> None:
    body = LOGS + "import signal\nrun.finish()\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL"
    code, err = end(start(place, body))
    assert code == 0, err


def test_sigterm_of_a_forked_worker_ends_only_the_worker(place: Path) -> None:
    body = (
        LOGS
        + """
import os, signal, time
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, b"x")
    while True: time.sleep(60)
os.read(read, 1)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
assert os.WTERMSIG(status) == signal.SIGTERM, status
"""
    )
    code, err = end(start(place, body))
    assert code == 0, err
    found = written.only(place)
    assert (found.state, len(found.exits)) == ("finished", 1)


def test_a_forked_child_that_leaves_by_sys_exit_ends_only_its_part(place: Path) -> None:
    body = (
        LOGS
        + """
import os, sys
child = os.fork()
if child == 0:
    run.log({"child": 1})
    sys.exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
run.log({"a": 10})
"""
    )
    code, err = end(start(place, body))
    assert code == 0, err
    found = written.only(place)
    assert found.exits == [{"state": "finished", "exit_code": 0, "cause": None, "is_assumed": True}]
    assert len(found.rows) == 12 and found.closed == 2


def test_an_uncommitted_row_is_kept(place: Path) -> None:
    end(start(place, LOGS + "run.log({'last': 1}, commit=False)"))
    assert written.only(place).rows[-1] == (10, {"last": 1})


def test_a_closed_stderr_is_no_error(place: Path) -> None:
    code, _ = end(start(place, "import sys; sys.stderr = None\n" + LOGS))
    assert (code, written.only(place).state) == (0, "finished")

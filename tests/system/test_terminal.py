"""What the courier may do to the trainer's output: add a line, never more."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

TALKER = """
import sys, trackd
run = trackd.init(project="talk")
for i in range(300):
    print("line", i, file=sys.stderr, flush=True)
    run.log({"x": i})
    if i == 10:
        run.url  # waits until the hub is known: that is when the courier prints the links
"""


def start(directory: Path, redirect: str) -> subprocess.CompletedProcess[str]:
    program = directory / "talk.py"
    program.write_text(TALKER)
    return subprocess.run(
        ["sh", "-c", f"{sys.executable} -W error {program} {redirect}"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("operator", ["2>", "2>>"])
def test_a_log_file_keeps_every_line(
    operator: str, trackd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKD_QUIET")
    log = tmp_path / "log.txt"
    log.write_text("kept\n" if operator == "2>>" else "")
    start(tmp_path, f"{operator} {log}")
    data = log.read_bytes()
    assert b"\0" not in data, "somebody truncated the file under the trainer"
    text = data.decode()
    assert text.startswith("kept\n") == (operator == "2>>")
    assert [line for line in text.splitlines() if line.startswith("line")] == [f"line {i}" for i in range(300)]
    assert all(line.startswith(("line ", "trackd: ", "kept")) for line in text.splitlines()), text


def test_a_pipeline_ends_with_the_trainer(trackd_home: Path, tmp_path: Path) -> None:
    """The courier outlives the trainer, but holds none of its descriptors: `| tee log` sees the end at once."""
    began = time.monotonic()
    done = start(tmp_path, "2>&1 | tee log.txt")
    assert "line 299" in done.stdout
    assert (tmp_path / "log.txt").read_text() == done.stdout
    assert time.monotonic() - began < 20

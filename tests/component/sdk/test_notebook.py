"""The same in a real Jupyter kernel."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from support import written

pytestmark = pytest.mark.filterwarnings("ignore")  # jupyter's own

LINKS = """
from trackd.lane import Lane
from trackd_proto.spool import Links
Lane.links = lambda self: Links("http://127.0.0.1:1/p/a/r/b", "http://127.0.0.1:1/p/a", "ticket1")
"""


def run_cells(directory: Path, *cells: str, allow_errors: bool = False) -> list[str]:
    """Execute cells in one kernel; each cell's whole output as text."""
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (written.PRELUDE, *cells)])
    client = nbclient.NotebookClient(
        notebook, timeout=60, allow_errors=allow_errors, resources={"metadata": {"path": str(directory)}}
    )
    client.execute()
    del client
    gc.collect()  # jupyter leaves sockets for the collector, whose warnings would fail whatever test runs then
    return [str(cell.outputs) for cell in notebook.cells[1:]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("TRACKD_HOME", str(home))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    return home


def test_a_notebook(place: Path, tmp_path: Path) -> None:
    outputs = run_cells(
        tmp_path,
        LINKS,
        "first = trackd.init(id='first', config={'lr': 1})",
        "trackd.log({'a': 1}); trackd.config.lr = 2",
        "second = trackd.init(id='second')\nassert first.is_finished and second is not first",
        "with trackd.init(id='third') as outer:\n    with trackd.init() as inner:\n        assert inner is outer\n"
        "    assert not outer.is_finished",
        "fourth = trackd.init(id='fourth'); fourth",
    )
    assert "<iframe" in outputs[1] and "http://127.0.0.1:1/p/a/r/b#ticket=ticket1" in outputs[1]
    assert "<iframe" not in outputs[2], "shown once"
    assert "first" in outputs[3] and "finished" in outputs[3]
    assert outputs[5].count("<iframe") >= 1, "a run as a cell's value is its page"
    found = written.runs(place)
    assert {run_id: run.state for run_id, run in found.items()} == {
        "first": "finished", "second": "finished", "third": "finished", "fourth": "finished"
    }  # fmt: skip
    assert found["first"].config == {"lr": 2} and found["first"].rows == [(0, {"a": 1})]


def test_a_cell_that_raises_fails_only_the_run_of_its_with(place: Path, tmp_path: Path) -> None:
    run_cells(
        tmp_path,
        "run = trackd.init(id='open')",
        "raise ValueError('a typo')",
        "run.log({'a': 1})\nwith trackd.init(id='with', reinit='create_new'):\n    raise ValueError('in with')",
        "run.log({'a': 2})",
        allow_errors=True,
    )
    found = written.runs(place)
    assert {run_id: run.state for run_id, run in found.items()} == {"open": "finished", "with": "failed"}
    assert found["open"].rows == [(0, {"a": 1}), (1, {"a": 2})]


def test_without_a_hub_cells_go_on_without_waiting_each_time(place: Path, tmp_path: Path) -> None:
    outputs = run_cells(
        tmp_path,
        "import time\nrun = trackd.init()",
        "begin = time.monotonic()",
        "took = time.monotonic() - begin\nassert took < 0.5, took",
        "run",
    )
    assert "<iframe" not in "".join(outputs)
    (run_id,) = written.runs(place)
    assert run_id in outputs[-1]

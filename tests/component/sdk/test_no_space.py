"""A run that begins where nothing can be written: training goes on, and records are kept once there is space."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trackd
from support import written
from trackd import places
from trackd import spool as files
from trackd.courier.lanes import SpoolLane
from trackd.courier.session import ServedSession
from trackd.courier.tail import Item
from trackd.lane import Lane
from trackd_proto import batch, records

ROW_BYTES = 1000


class Full:
    """A disk without a free byte, until `is_full` is taken back."""

    def __init__(self) -> None:
        self.is_full = True
        self.refused = 0

    def check(self) -> bool:
        """Raises OSError: there is no space."""
        if self.is_full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    def end(self, run: trackd.Run) -> None:
        """There is space, and the lane looks for it with its next record and not in 100 ms."""
        self.is_full = False
        run._lane._full_until = 0.0  # type: ignore[union-attr]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Full]:
    disk = Full()
    allocate, fill = files._allocate, files._fill
    monkeypatch.setattr(files, "_allocate", lambda fd, size: disk.check() and allocate(fd, size))
    monkeypatch.setattr(files, "_fill", lambda fd, start, end: disk.check() and fill(fd, start, end))
    yield disk
    assert disk.refused > 0, "nothing was refused"


def items(home: Path) -> list[Item]:
    """What a courier would send of the run's main writer."""
    (head,) = home.glob("*/spool/*/*.head")
    lane = SpoolLane(head)
    lane.flight.window_bytes = 1 << 40
    found = []
    while item := lane.next_item():
        found.append(item)
    lane.close()
    return found


def values(found: list[Item]) -> list[int]:
    """The rows' `i`, in order."""
    rows = [record for item in found if not item.reason for record in batch.decode_all(item.data, item.count)]
    return [row[3]["i"] for row in rows if row[0] == records.ROW_ORDINAL]


def test_what_was_logged_before_there_was_space_is_kept(
    home: Path, full: Full, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trackd.init(project="p", config={"lr": 1})
    for i in range(100):
        run.log({"i": i})
    assert not list(home.glob("*/spool/*/*.head"))
    full.end(run)
    for i in range(100, 200):
        run.log({"i": i})
    run.finish()
    found = written.only(home)
    assert found.main["project"] == "p" and found.config == {"lr": 1}
    assert values(items(home)) == list(range(200))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert all(part in line for part in (str(home), "No space left", "in the memory", "Free some space", "TRACKD_HOME"))


def test_what_found_no_place_in_memory_either_is_declared_exactly(home: Path, full: Full) -> None:
    run = trackd.init(project="p")
    for i in range(3000):
        run.log({"i": i, "text": "x" * ROW_BYTES})
    lost = run._lane.watermarks().lost
    assert 1900 < lost < 2100, "a MiB of rows is kept"
    full.end(run)
    for i in range(3000, 3010):
        run.log({"i": i})
    run.finish()
    found = items(home)
    losses = [item for item in found if item.reason]
    assert [(loss.count, loss.reason) for loss in losses] == [(lost, "full")]
    assert values(found) == [*range(3000 - lost), *range(3000, 3010)], "neither more nor less than what was declared"
    assert all(after.first_seq == before.next_seq for before, after in pairwise(found))


def test_an_interrupt_while_the_files_are_made_changes_nothing(
    home: Path, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trackd.init(project="p")
    run.log({"i": 0})
    full.end(run)
    create_head = files.create_head

    def interrupted(*arguments: object) -> None:
        create_head(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "create_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.log({"i": 1})
    monkeypatch.setattr(files, "create_head", create_head)
    full.end(run)
    run.log({"i": 2})
    run.finish()
    assert values(items(home)) == [0, 2], "the call that was interrupted did not return"


def test_a_disk_that_stays_full_is_said_at_the_end(home: Path, full: Full, capsys: pytest.CaptureFixture[str]) -> None:
    run = trackd.init(project="p")
    run.log({"i": 1})
    run.log({"loss": 0.5})
    run.finish()
    assert f"could be kept: there was no space in {home}" in capsys.readouterr().err


def test_a_forked_child_and_a_nested_call_find_no_space_either(home: Path, full: Full) -> None:
    full.is_full = False
    run = trackd.init(project="p")
    full.is_full = True
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.log({"i": 1})
            code = 0 if run._lane.is_in_memory and full.refused else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    lane = run._lane
    assert isinstance(lane, Lane)
    with lane._lock:
        run.log({"i": 2})
    nested = lane._nested
    assert isinstance(nested, Lane) and nested.is_in_memory and nested.watermarks().assigned == 2


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_without_any_place_the_training_goes_on(
    home: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def refuse(place: Path) -> None:
        asked.append(place)
        raise OSError(number, os.strerror(number), str(place))

    monkeypatch.setattr(places, "_open_instance", refuse)
    monkeypatch.setattr(places, "_make", lambda parent, name: refuse(parent))
    run = trackd.init(project="p", config={"lr": 1})
    run.log({"i": 1})
    assert run.disabled and run.config.lr == 1
    run.finish()
    err = capsys.readouterr().err
    assert len(asked) >= 2
    assert err.count("NOTHING OF THIS RUN IS KEPT") == 1 and str(home) in err and "TRACKD_HOME" in err


def test_a_full_spool_directory_is_tried_again(home: Path, full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """No inode for the session's own directory: it is made once there is one."""
    mkdir = Path.mkdir

    def refused(path: Path, *arguments: object, **options: object) -> None:
        if path.parent.name == "spool":
            full.check()
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refused)
    run = trackd.init(project="p")
    run.log({"i": 0})
    full.end(run)
    run.log({"i": 1})
    run.finish()
    assert values(items(home)) == [0, 1]


@pytest.mark.parametrize(("code", "state"), [(None, "finished"), (3, "failed")])
def test_an_end_that_found_no_space_is_told_by_the_courier(
    home: Path, full: Full, code: int | None, state: str
) -> None:
    """Otherwise a run that ended well shows "lost contact" for ever."""
    full.is_full = False
    run = trackd.init(project="p")
    full.is_full = True
    for i in range(1500):
        run.log({"i": i, "text": "x" * ROW_BYTES})
    assert run._lane.watermarks().lost > 100
    run.finish(code)
    (directory,) = home.glob("*/spool/*")
    session = ServedSession.claim(directory)
    assert session is not None
    assert len(session.find_lanes()) == 1
    refused = full.refused
    session.end_dead()
    assert full.refused > refused and session.find_lanes() == [], "no space for that either, and nothing left behind"
    session._full_until = 0.0
    full.is_full = False
    session.end_dead()
    (own,) = session.find_lanes()
    item = own.next_item()
    assert item is not None
    start, end = batch.decode_all(item.data, item.count)
    assert (start[0], end[0]) == (records.START, records.EXIT) and own.target.role == "courier"
    assert (end[3]["state"], end[3]["exit_code"]) == (state, code or 0) and "no space" in end[3]["cause"]
    session.end_dead()
    assert session.find_lanes() == [], "once"
    session.close(is_done=False)

"""What the courier keeps of the sessions it serves, and when it leaves."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from trackd import spool as files
from trackd.courier import main as courier_main
from trackd.courier.main import Courier
from trackd.courier.session import ServedSession
from trackd_proto import layout
from trackd_proto.v1 import ingest_pb2

from .spooling import make_lane, make_session, no_more_files, open_files, served

KEPT = 32
"""Ended lanes of which `flush()` could still be asked."""


@pytest.fixture
def where(tmp_path: Path) -> layout.Instance:
    return layout.Instance(tmp_path, "host")


# -- a head that cannot be read now ------------------------------------------------------------------------------------


def _let_rest(directory: Path) -> None:
    """Nothing has changed in it for long, so that one look at its time is enough."""
    os.utime(directory, ns=(0, time.time_ns() - 60_000_000_000))


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_lane_whose_run_directory_cannot_be_asked_is_taken_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Two hours of a network file system that is away are no reason to leave a head alone for good."""
    directory = make_session(tmp_path / "s")
    lane = make_lane(directory)
    session = served(directory)
    _let_rest(directory)
    before = open_files()

    def away(_path: Path) -> bool:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", away)
        for _ in range(3):
            assert session.find_lanes() == []
            assert open_files() == before, "of a try that failed nothing stays open"
    assert [found.writer_id for found in session.find_lanes()] == [lane.writer_id]
    assert session.find_lanes() == [], "found once"
    session.close(is_done=False)


def test_a_head_that_finds_no_descriptor_is_taken_in_a_later_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_session(tmp_path / "s")
    lane = make_lane(directory)
    session = served(directory)
    _let_rest(directory)
    heads = [directory / f"{lane.writer_id.hex()}.head"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", lambda self, pattern: heads)  # it would find no descriptor either
        with no_more_files():
            assert session.find_lanes() == [] and session.find_lanes() == []
    assert [found.writer_id for found in session.find_lanes()] == [lane.writer_id]
    assert capsys.readouterr().err.count("\n") == 1, "said once, not in every round"
    session.close(is_done=False)


def test_a_head_that_is_none_is_left_alone_for_good(tmp_path: Path) -> None:
    directory = make_session(tmp_path / "s")
    lane = make_lane(directory)
    (directory / f"{bytes(16).hex()}.head").write_bytes(b"no head")
    session = served(directory)
    assert [found.writer_id for found in session.find_lanes()] == [lane.writer_id]
    assert session.unreadable == {f"{bytes(16).hex()}.head"}
    session.close(is_done=False)


# -- runs that have ended ----------------------------------------------------------------------------------------------


def _deliver(session: ServedSession) -> None:
    """As an agent without a hub does it: everything is durable, nothing committed."""
    for lane in [lane for lane in session.lanes.values() if lane.has_files]:
        lane.resume(1)
        while item := lane.next_item():
            lane.flight.add(item)
        lane.advance(lane.tail.position.next_seq - 1, lane.tail.position.next_seq - 1, 0)
    session.finish_sent()


def _find(courier: Courier, session: ServedSession) -> None:
    for lane in session.find_lanes():
        courier._start(lane)


async def test_of_runs_that_no_hub_has_only_the_newest_are_kept(where: layout.Instance) -> None:
    session = served(make_session(where.spool / "s"))
    courier = Courier(where, [session])
    first, held = make_lane(session.directory), []
    _find(courier, session)
    _deliver(session)
    before = open_files()
    for _ in range(150):
        run = make_lane(session.directory)
        run.row({"a": 1})
        _find(courier, session)
        run.close()
        run.let_go(anyway=True)  # as the trainer does
        _deliver(session)
        courier._forget_finished(session)
        held.append(open_files() - before)
    assert held[-1] == max(held) <= 2 * KEPT, held
    assert len(session.lanes) == KEPT + 1, "and the one that goes on"
    assert set(courier._sender._lanes) == set(session.lanes)
    assert list(session.directory.glob("*.head")) == [session.directory / f"{first.writer_id.hex()}.head"]

    first.close()  # the oldest of all, and the last to end
    _deliver(session)
    courier._forget_finished(session)
    assert first.writer_id in session.lanes and len(session.lanes) == KEPT
    session.lanes[first.writer_id].advance(1, 1, 1)
    assert first.wait("committed", 0.0), "a hub came after all: finish() and flush() hear of it"
    session.close(is_done=False)


async def test_a_hub_that_comes_back_commits_what_is_kept_and_what_is_not(where: layout.Instance) -> None:
    session = served(make_session(where.spool / "s"))
    courier = Courier(where, [session])
    runs = []
    for _ in range(KEPT + 3):
        runs.append(make_lane(session.directory))
        _find(courier, session)
        runs[-1].close()
    _deliver(session)
    courier._forget_finished(session)
    marks = [ingest_pb2.Watermark(writer_id=run.writer_id, committed=1) for run in runs]
    courier._sender._take(ingest_pb2.PushReply(watermarks=marks))
    assert [run.wait("committed", 0.0) for run in runs] == [False] * 3 + [True] * KEPT
    assert all(run.wait("durable", 0.0) for run in runs)
    session.close(is_done=False)


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "is_hopeless"), [("alive", False), ("ended", True), ("dead", True)])
async def test_a_courier_stays_for_a_child_that_outlives_its_parent(
    where: layout.Instance, state: str, is_hopeless: bool
) -> None:
    """A long epoch is silent for longer than a courier waits without a trainer."""
    session = served(make_session(where.spool / "s", is_dead=True))
    child = make_lane(session.directory)
    courier = Courier(where, [session])
    _find(courier, session)
    if state == "ended":
        child.close()
    elif state == "dead":
        session.lanes[child.writer_id].owner._is_dead = True
    courier._progress = (0, time.monotonic() - 2 * courier_main._GIVE_UP_S)
    assert courier._is_hopeless() is is_hopeless
    session.close(is_done=False)


async def test_flush_does_not_wait_for_such_a_child(where: layout.Instance) -> None:
    session = served(make_session(where.spool / "s", is_dead=True))
    make_lane(session.directory)
    courier = Courier(where, [session], adopt_only=True)
    _find(courier, session)
    courier._progress = (0, time.monotonic() - 60)
    assert courier._is_hopeless()
    session.close(is_done=False)


# -- whose session it is -----------------------------------------------------------------------------------------------


async def test_flush_takes_no_lock_of_a_process_that_lives(
    where: layout.Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That process's own courier may be looking for it in this moment."""
    make_session(where.spool / "living")
    make_session(where.spool / "dead", is_dead=True)
    (where.spool / "nothing").mkdir()
    claimed: list[str] = []
    claim = ServedSession.claim
    monkeypatch.setattr(ServedSession, "claim", lambda d, **more: (claimed.append(d.name), claim(d, **more))[1])
    monkeypatch.setattr(time, "time", lambda: 0.0)  # none of them is new
    assert await Courier(where, [], adopt_only=True).serve()
    assert claimed == ["dead"]
    assert ServedSession.claim(where.spool / "living", must_be_dead=True) is None, "asked once more behind the lock"
    served(where.spool / "living").close(is_done=False)


def _held(directory: Path, pid: int) -> int:
    """The lock of a session, as another process holds it; `pid`: of a courier that claimed it before."""
    lock = os.open(directory / "courier.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.pwrite(lock, struct.pack("=QQ", pid, files.start_ticks(pid)), 0)
    return lock


@pytest.mark.parametrize("pid", [0, os.getpid()], ids=["a courier that is gone", "this one, before a crash"])
def test_a_sessions_own_courier_waits_for_who_only_looks_into_it(tmp_path: Path, pid: int) -> None:
    directory = make_session(tmp_path / "s")
    lock = _held(directory, pid)
    timer = threading.Timer(0.3, os.close, (lock,))
    timer.start()
    session = courier_main._claim(directory)
    timer.join()
    assert session is not None
    session.close(is_done=False)


def test_a_sessions_own_courier_leaves_if_another_one_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_session(tmp_path / "s")
    claimed = served(directory)
    begun = time.monotonic()
    monkeypatch.setattr(os, "getpid", os.getppid)  # as another courier
    assert courier_main._claim(directory) is None
    claimed.close(is_done=False)
    assert courier_main._claim(tmp_path / "gone") is None
    assert time.monotonic() - begun < 0.1, "nothing to wait for"


def test_a_sessions_own_courier_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an older trackd's, which does not say that it serves the session."""
    monkeypatch.setattr(courier_main, "_CLAIM_S", 0.2)
    directory = make_session(tmp_path / "s")
    lock = _held(directory, 0)
    begun = time.monotonic()
    assert courier_main._claim(directory) is None
    assert 0.2 <= time.monotonic() - begun < 2
    os.close(lock)


async def test_a_courier_that_begins_again_after_a_fault_can_claim_what_it_had_adopted(where: layout.Instance) -> None:
    directories = [make_session(where.spool / "own"), make_session(where.spool / "adopted")]
    before = open_files()
    sessions = [served(directory) for directory in directories]
    courier = Courier(where, sessions)
    for session in sessions:
        make_lane(session.directory).close()
        _find(courier, session)
    courier.let_go()
    gc.collect()
    assert open_files() <= before + len(directories), "the heads that this process has as their trainer"
    for directory in directories:
        served(directory).close(is_done=False)

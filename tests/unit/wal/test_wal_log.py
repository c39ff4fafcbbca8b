"""The write-ahead log under faults: what it calls durable can be read back, whatever the disk does."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import damaged
from trackd_daemon.wal import files, frames, recovery
from trackd_daemon.wal import log as log_module
from trackd_daemon.wal.log import Wal
from trackd_daemon.wal.quota import Quota
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.state import Position
from trackd_daemon.wal.writer import LogWriter, Progress
from trackd_proto import segment
from trackd_proto.compress import Decompressor
from trackd_proto.segment import UnsupportedVersion
from trackd_proto.v1 import ingest_pb2

A, B = b"a" * 16, b"b" * 16
WAIT_S = 20.0


class FaultyDisk(files.RealDisk):
    """Fails when told; counts what it did. A failed sync loses what was not synced, as Linux may."""

    def __init__(self) -> None:
        self.fail_write: Callable[[int], OSError | None] = lambda _size: None
        self.short_writes = False
        self.fail_sync: Callable[[], OSError | None] = lambda: None
        self.fail_truncate = False
        self.fail_close = self.fail_unlink = False
        self.fired = 0
        self.synced_size: dict[int, int] = {}

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if error := self.fail_write(len(data)):
            self.fired += 1
            os.pwrite(descriptor, data[: len(data) // 2], offset)  # the half that still fitted
            raise error
        size = max(1, len(data) // 3) if self.short_writes else len(data)
        return os.pwrite(descriptor, data[:size], offset)

    def truncate(self, descriptor: int, size: int) -> None:
        if self.fail_truncate:
            raise OSError(errno.EIO, "injected")
        super().truncate(descriptor, size)

    def unlink(self, path: Path) -> None:
        if self.fail_unlink:
            raise OSError(errno.EIO, "injected into unlink")
        super().unlink(path)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)  # as Linux does: gone although it failed
        if self.fail_close:
            raise OSError(errno.EIO, "injected into close")

    def sync(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if error := self.fail_sync():
            self.fired += 1
            os.ftruncate(descriptor, self.synced_size.get(inode, 0))
            raise error
        super().sync(descriptor)
        self.synced_size[inode] = os.fstat(descriptor).st_size


class Log:
    """A running log and what it has said so far."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.received: dict[bytes, int] = {}
        self.durable: dict[bytes, int] = {}
        self.end = Position(0, 0)
        self.full = ""
        self.stuck: tuple[ingest_pb2.Batch, ...] = ()
        self.taken_bytes = 0
        self.progress = threading.Condition()
        self.recovered = recovery.recover(directory, 1)
        self.wal = Wal(directory, self.recovered, self._notify, **options)
        self.end = self.wal.start()

    def _notify(self, progress: Progress) -> None:
        with self.progress:
            self.received |= progress.received
            self.durable |= progress.durable
            self.end = progress.durable_end or self.end
            self.full, self.stuck = progress.full_reason, progress.stuck
            self.taken_bytes += progress.taken_bytes
            self.progress.notify_all()

    def wait(self, is_reached: Callable[[], bool]) -> None:
        with self.progress:
            assert self.progress.wait_for(is_reached, WAIT_S), (self.durable, self.full)

    def put(self, writer: bytes, first: int, count: int, **fields: Any) -> None:
        self.wal.append([batch(writer, first, count, **fields)])

    def read(self, route: str = "embedded") -> list[ingest_pb2.Batch]:
        reader = RouteReader(self.wal.directory, route, lambda: self.wal.segments)
        found: list[ingest_pb2.Batch] = []
        at_end = False
        while not at_end:
            some, at_end = reader.read(self.end, 1000)
            found += some
        reader.close()
        return found

    def seqs(self, writer: bytes, route: str = "embedded") -> list[int]:
        """The seqs that can be read, duplicates taken out, their content checked."""
        seen: list[int] = []
        for found in self.read(route):
            if found.writer_id == writer:
                data = Decompressor().decompress(found.data, found.raw_bytes) if found.codec else found.data
                assert data == content(writer, found.first_seq, found.count)
                fresh = range(max(found.first_seq, (seen[-1] if seen else 0) + 1), found.first_seq + found.count)
                seen += fresh
        return seen


def content(writer: bytes, first: int, count: int) -> bytes:
    return b"".join(b"%s-%d;" % (writer, seq) for seq in range(first, first + count))


def batch(writer: bytes, first: int, count: int, **fields: Any) -> ingest_pb2.Batch:
    given = {"route": "embedded", "project": "p", "run_id": "r", "data": content(writer, first, count)} | fields
    return ingest_pb2.Batch(writer_id=writer, first_seq=first, count=count, **given)


def frames_of(directory: Path, number: int) -> list[segment.Frame]:
    with files.SegmentReader(files.path_of(directory, number)) as reader:
        return [found for found in reader.frames() if isinstance(found, segment.Frame)]


@pytest.fixture
def logs() -> Iterator[list[Log]]:
    opened: list[Log] = []
    yield opened
    for log in opened:
        log.wal.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def open_log(logs: list[Log], directory: Path, **options: Any) -> Log:
    log = Log(directory, **options)
    logs.append(log)
    return log


def test_durable_records_are_read_back_after_a_restart(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 10)
    log.put(B, 1, 3)
    log.put(A, 11, 5)
    log.wait(lambda: log.durable == {A: 15, B: 3})
    assert log.seqs(A) == list(range(1, 16))
    log.wal.close()
    again = open_log(logs, directory)
    assert {w.writer_id: w.received for w in again.recovered.state.writers.values()} == {A: 15, B: 3}
    assert again.seqs(A) == list(range(1, 16))
    assert again.seqs(B) == [1, 2, 3]


def test_the_last_records_of_a_writer_are_missed_though_they_are_damaged_while_nobody_runs(
    logs: list[Log], directory: Path
) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 10)
    log.put(A, 11, 5)
    log.wait(lambda: log.durable == {A: 15})
    log.wal.close()
    with files.path_of(directory, 1).open("r+b") as file:
        last = [found for found in frames_of(directory, 1) if found.type == segment.DATA][-1]
        file.seek(last.offset + segment.FRAME_BYTES)
        file.write(b"\xff")
    tops, _ = damaged.recovered_tops(directory)
    assert tops == {A: 15}
    assert damaged.deliver(directory, tops).lost == {A: set(range(11, 16))}


def test_nothing_is_appended_to_a_segment_of_an_earlier_incarnation(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    log.wal.close()
    kept = directory / "kept"
    kept.hardlink_to(files.path_of(directory, 1))  # the log copies what was left in doubt and removes the segment
    before = kept.read_bytes()
    again = open_log(logs, directory)
    again.put(A, 11, 1)
    again.wait(lambda: again.durable == {A: 11})
    assert kept.read_bytes() == before
    assert again.seqs(A) == list(range(1, 12))


def test_routes_do_not_see_each_other(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 4)
    log.put(B, 1, 4, route="hub:1")
    log.wait(lambda: log.durable == {A: 4, B: 4})
    assert (log.seqs(A), log.seqs(B)) == ([1, 2, 3, 4], [])
    assert (log.seqs(A, "hub:1"), log.seqs(B, "hub:1")) == ([], [1, 2, 3, 4])


def test_segments_roll_and_go_when_everything_in_them_is_acked(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory, segment_bytes=2000)
    for i in range(60):
        log.put(A, 1 + 10 * i, 10)
        log.wait(lambda i=i: log.durable.get(A) == 10 * i + 10)  # type: ignore[misc]
    assert len(log.wal.segments) > 3
    assert log.seqs(A) == list(range(1, 601))
    log.wal.acknowledge({A: 300})
    log.wal.sync(WAIT_S)
    left = log.seqs(A)
    assert left[0] > 1
    assert set(range(301, 601)) <= set(left), "a record that is not acked was removed"
    log.wal.acknowledge({A: 600})
    log.wal.sync(WAIT_S)
    assert len(log.wal.segments) == 1
    assert files.numbers(directory) == list(log.wal.segments)


def test_a_stalled_writer_does_not_keep_segments_that_others_have_finished_with(
    logs: list[Log], directory: Path
) -> None:
    log = open_log(logs, directory, segment_bytes=2000)
    log.put(B, 1, 1)
    for i in range(60):
        log.put(A, 1 + 10 * i, 10)
        log.wait(lambda i=i: log.durable.get(A) == 10 * i + 10)  # type: ignore[misc]
    log.wal.acknowledge({A: 600})
    log.wal.sync(WAIT_S)
    assert len(log.wal.segments) == 2
    log.wal.close()
    again = open_log(logs, directory)
    assert again.seqs(B) == [1]
    assert again.recovered.state.writers[A].acked == 600


def test_acks_survive_the_segments_that_held_them(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory, segment_bytes=1000)
    for i in range(30):
        log.put(A, 1 + 10 * i, 10)
        log.wait(lambda i=i: log.durable.get(A) == 10 * i + 10)  # type: ignore[misc]
        log.wal.acknowledge({A: 10 * i + 10})
    log.wal.close()
    found = recovery.recover(directory, 1)
    assert (found.state.writers[A].received, found.state.writers[A].acked) == (300, 300)


def test_a_failed_sync_makes_nothing_durable_and_loses_nothing(logs: list[Log], directory: Path) -> None:
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    failures = [OSError(errno.EIO, "injected")]
    disk.fail_sync = lambda: failures.pop() if failures else None
    log.put(A, 11, 10)
    log.wait(lambda: log.durable == {A: 20})
    assert disk.fired == 1
    assert len(log.wal.segments) == 2, "a poisoned file must not be used again"
    assert log.seqs(A) == list(range(1, 21))
    log.wal.close()
    assert recovery.recover(directory, 1).state.writers[A].received == 20


def test_while_every_sync_fails_nothing_is_called_durable(logs: list[Log], directory: Path) -> None:
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)
    disk.fail_sync = lambda: OSError(errno.EIO, "injected")
    log.put(A, 1, 10)
    log.wait(lambda: bool(log.full))
    assert log.durable == {}
    assert "injected" in log.full
    assert [(b.first_seq, b.count) for b in log.stuck] == [(1, 10)], "what must go past the log for now"
    disk.fail_sync = lambda: None
    log.wait(lambda: log.durable == {A: 10} and not log.stuck)
    assert log.seqs(A) == list(range(1, 11))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("can_truncate", [True, False])
def test_a_write_that_fails_half_way_is_done_again(
    logs: list[Log], directory: Path, number: int, can_truncate: bool
) -> None:
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    failures = [OSError(number, "injected")]
    disk.fail_truncate = not can_truncate
    disk.fail_write = lambda _size: failures.pop() if failures else None
    log.put(A, 11, 10)
    log.put(B, 1, 2)
    log.wait(lambda: log.durable == {A: 20, B: 2})
    assert disk.fired == 1
    assert log.seqs(A) == list(range(1, 21))
    assert log.seqs(B) == [1, 2]
    log.wal.close()
    state = recovery.recover(directory, 1).state
    assert {w.writer_id: w.received for w in state.writers.values()} == {A: 20, B: 2}


def test_short_writes_are_completed(logs: list[Log], directory: Path) -> None:
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)
    disk.short_writes = True
    log.put(A, 1, 100)
    log.wait(lambda: log.durable == {A: 100})
    assert log.seqs(A) == list(range(1, 101))


def test_at_the_quota_it_waits_and_goes_on_when_space_returns(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory, segment_bytes=1000, quota=Quota(quota_bytes=5000, min_free_bytes=1))
    sent = 0
    while not log.full:
        log.put(A, 1 + sent, 10)
        sent += 10
        seen = sent
        log.wait(lambda: log.durable.get(A, 0) >= seen or bool(log.full))  # noqa: B023
    assert "quota of 5000 bytes" in log.full
    durable = log.durable[A]
    assert durable < sent
    log.wal.acknowledge({A: durable})
    log.wait(lambda: log.durable[A] == sent)
    assert log.seqs(A)[-1] == sent


def test_close_brings_everything_to_the_disk(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    for i in range(50):
        log.put(A, 1 + 10 * i, 10)
    log.wal.close()
    assert recovery.recover(directory, 1).state.writers[A].received == 500


def test_recovery_survives_truncation_at_every_byte_of_the_last_segment(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    for i in range(5):
        log.put(A, 1 + 10 * i, 10)
        log.wait(lambda i=i: log.durable.get(A) == 10 * i + 10)  # type: ignore[misc]
    log.wal.close()
    files.path_of(directory, 2).unlink()  # the last segment of a log that did not end cleanly
    path = files.path_of(directory, 1)
    whole = path.read_bytes()
    ends = {f.end: f for f in segment.scan(whole)}
    last = 0
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        state = recovery.recover(directory, 1).state
        received = state.writers[A].received if A in state.writers else 0
        assert received % 10 == 0
        assert received >= last, "a longer file holds fewer records"
        last = received
        if size in ends and ends[size].type == segment.DATA:
            payload = ingest_pb2.Batch.FromString(ends[size].payload)  # type: ignore[union-attr]
            assert received == payload.first_seq + payload.count - 1
    assert last == 50


def test_a_newer_segment_is_refused_and_nothing_is_touched(logs: list[Log], directory: Path) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    log.wal.close()
    path = files.path_of(directory, 1)
    data = bytearray(path.read_bytes())
    import struct
    import zlib

    struct.pack_into("<HH", data, 8, 5, 5)
    data[20:24] = bytes(4)
    data[20:24] = struct.pack("<I", zlib.crc32(bytes(data[:64])))
    path.write_bytes(bytes(data))
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    with pytest.raises(UnsupportedVersion, match="format 5"):
        recovery.recover(directory, 1)
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


def test_the_time_to_start_grows_with_the_log_and_not_with_its_square(logs: list[Log], directory: Path) -> None:
    """Thousands of writers leave tens of thousands of small frames. With the square of them, 12,000 took 6 s of
    processor time, and an agent with 8,000 writers did not listen within a minute."""
    writers = [number.to_bytes(16, "big") for number in range(12_000)]
    log = open_log(logs, directory)
    log.wal.append([batch(writer, 1, 1) for writer in writers])
    log.wait(lambda: len(log.durable) == len(writers))
    killed = directory.with_name("killed")
    shutil.copytree(directory, killed)  # no seal: all of it is written again at the next start
    found = recovery.recover(killed, 1)
    began = time.thread_time()
    again = Wal(killed, found, lambda _progress: None)
    again.start()
    took_s = time.thread_time() - began
    again.close()
    with files.SegmentReader(files.path_of(killed, found.next_segment)) as reader:
        assert sum(isinstance(f, segment.Frame) and f.type == segment.DATA for f in reader.frames()) == len(writers)
    assert took_s < 2


NO_SPACE, UNREADABLE = OSError(errno.ENOSPC, "injected"), OSError(errno.EIO, "injected")


class Turns:
    """Counts what the log tries while it is watched."""

    def __init__(self, error: OSError) -> None:
        self.count = 0
        self._error = error

    def fail(self, _size: int = 0) -> OSError:
        self.count += 1
        return self._error

    def in_time(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> int:
        self.count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            meanwhile()
            time.sleep(0.005)
        return self.count


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second takes a fifth of one."""
    monkeypatch.setattr(log_module, "_RETRY_S", 0.2)
    monkeypatch.setattr(log_module, "_ACK_DELAY_S", 0.05)


@pytest.mark.usefixtures("hasty")
def test_an_ack_that_cannot_be_written_is_tried_once_in_a_while(logs: list[Log], directory: Path) -> None:
    disk, turns = FaultyDisk(), Turns(NO_SPACE)
    log = open_log(logs, directory, disk=disk)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    disk.fail_write = turns.fail
    log.wal.acknowledge({A: 10})
    log.wait(lambda: bool(log.full))
    assert 2 <= turns.in_time(1.0) <= 7
    disk.fail_write = lambda _size: None
    log.wait(lambda: not log.full)
    assert log.wal.sync(WAIT_S)
    log.wal.close()
    assert recovery.recover(directory, 1).state.writers[A].acked == 10


@pytest.mark.usefixtures("hasty")
def test_a_failed_sync_is_tried_again_once_in_a_while(logs: list[Log], directory: Path) -> None:
    disk, turns = FaultyDisk(), Turns(UNREADABLE)
    log = open_log(logs, directory, disk=disk)
    disk.fail_sync = turns.fail
    log.put(A, 1, 10)
    log.wait(lambda: bool(log.full))
    assert 2 <= turns.in_time(1.0) <= 7
    disk.fail_sync = lambda: None
    log.wait(lambda: log.durable == {A: 10})


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("has_acks", [False, True])
def test_a_full_log_is_tried_on_time_however_often_it_is_told_something(
    logs: list[Log], directory: Path, has_acks: bool
) -> None:
    disk, turns = FaultyDisk(), Turns(NO_SPACE)
    log = open_log(logs, directory, disk=disk)
    log.put(B, 1, 1)
    log.wait(lambda: log.durable == {B: 1})
    disk.fail_write = turns.fail
    log.put(A, 1, 1)
    log.wait(lambda: bool(log.full))
    seqs = iter(range(2, 10_000))

    def news() -> None:
        log.put(A, next(seqs), 1)
        if has_acks:
            log.wal.acknowledge({B: 1})

    assert 2 <= turns.in_time(1.0, news) <= 7
    disk.fail_write = lambda _size: None
    sent = next(seqs) - 1
    log.wait(lambda: log.durable.get(A) == sent)
    assert log.seqs(A) == list(range(1, sent + 1))


def test_who_waits_for_a_sync_does_not_make_a_full_log_spin(logs: list[Log], directory: Path) -> None:
    disk, turns = FaultyDisk(), Turns(NO_SPACE)
    log = open_log(logs, directory, disk=disk)
    disk.fail_write = turns.fail
    log.put(A, 1, 1)
    log.wait(lambda: bool(log.full))
    results: list[bool] = []
    waiting = [threading.Thread(target=lambda: results.append(log.wal.sync(0.6))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    tried = turns.in_time(0.5, lambda: log.wal.acknowledge({B: 1}))
    for thread in waiting:
        thread.join()
    assert results == [False, False]
    assert 5 <= tried <= 25, "each of them once in 0.05 s"
    disk.fail_write = lambda _size: None
    assert log.wal.sync(WAIT_S)
    assert log.durable == {A: 1}


@pytest.mark.usefixtures("hasty")
def test_what_is_committed_while_a_full_log_is_tried_is_not_kept(logs: list[Log], directory: Path) -> None:
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)

    def commit_and_fail(_size: int) -> OSError:
        log.wal.acknowledge({A: 10})
        return UNREADABLE

    disk.fail_write = commit_and_fail
    log.put(A, 1, 10)
    log.wait(lambda: log.taken_bytes == len(content(A, 1, 10)))
    disk.fail_write = lambda _size: None
    assert log.wal.sync(WAIT_S)
    assert log.seqs(A) == []


@pytest.mark.usefixtures("hasty")
def test_a_reason_goes_when_there_is_room_and_nothing_to_write(logs: list[Log], directory: Path) -> None:
    """Everything went past the full log: nothing that is written says that it has room again."""
    disk = FaultyDisk()
    log = open_log(logs, directory, disk=disk)
    disk.fail_write = lambda _size: NO_SPACE
    log.put(A, 1, 10)
    log.wait(lambda: bool(log.full))
    log.wal.acknowledge({A: 10})
    log.wait(lambda: log.taken_bytes > 0)
    log.wal._backlog._acks.clear()
    disk.fail_write = lambda _size: None
    log.wait(lambda: not log.full)


@pytest.mark.usefixtures("hasty")
def test_acks_that_go_into_a_full_log_open_it_for_nothing_else(
    logs: list[Log], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(logs, directory, quota=Quota(min_free_bytes=1 << 20))
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    with monkeypatch.context() as patch:
        said = list(os.statvfs(directory))
        said[2] = said[3] = said[4] = 1  # free blocks
        patch.setattr(os, "statvfs", lambda _path: os.statvfs_result(said))
        log.wal._writer._checked_disk_s = 0.0
        log.put(A, 11, 10)
        log.wait(lambda: bool(log.full))
        for _ in range(5):
            log.wal.acknowledge({A: 5})
            time.sleep(0.1)
        assert log.durable == {A: 10}
        assert not log.wal._backlog.has_acks, "they were written"
    log.wait(lambda: log.durable == {A: 20})


@pytest.mark.parametrize("fault", ["fail_unlink", "fail_close"])
def test_a_segment_that_came_to_nothing_and_stays_does_not_stop_the_log(
    directory: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk()
    writer = LogWriter(directory, recovery.recover(directory, 1), disk=disk)
    writer.start()
    writer.write([batch(A, 1, 10)], {})
    disk.fail_sync = lambda: UNREADABLE
    setattr(disk, fault, True)
    with pytest.raises(OSError, match=r"injected$"):  # and not what the clean-up said
        writer.sync()
    with pytest.raises(OSError, match=r"injected$"):
        writer.sync()
    disk.fail_sync = lambda: None
    writer.sync()
    assert writer.take_progress().durable == {A: 10}
    assert not writer.is_dirty
    writer.write([batch(A, 11, 10)], {})
    writer.sync()
    writer.close()
    left = set(files.numbers(directory)) - set(writer.segments)
    assert len(left) == (2 if fault == "fail_unlink" else 0)
    found = recovery.recover(directory, 1)
    assert found.state.writers[A].received == 20
    writer = LogWriter(directory, found)
    writer.start()
    writer.close()
    assert not left & set(files.numbers(directory)), "the next start removes it"


def test_a_disk_that_does_not_say_how_full_it_is_has_room(
    logs: list[Log], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(logs, directory)
    quota = log.wal.quota_bytes
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", _unreadable)
        log.wal._writer._checked_disk_s = 0.0
        log.put(A, 1, 10)
        log.wait(lambda: log.durable == {A: 10})
        assert log.wal.quota_bytes == quota
        again = LogWriter(directory, recovery.recover(directory, 1))
        assert again.quota_bytes == Quota().limit(1 << 62), "never said: the most that it may be"
    assert not log.full


def _unreadable(*_args: object) -> Any:
    raise OSError(errno.EIO, "injected")


@pytest.mark.usefixtures("hasty")
def test_the_thread_outlives_errors_that_are_not_the_disks(
    logs: list[Log], directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(logs, directory)
    log.put(A, 1, 10)
    log.wait(lambda: log.durable == {A: 10})
    with monkeypatch.context() as patch:
        patch.setattr(segment, "MAX_PAYLOAD_BYTES", 20)
        log.put(A, 11, 10)
        log.wal.acknowledge({A: 10})
        log.wait(lambda: "ValueError: a frame of" in log.full)
        time.sleep(1.0)
        assert not log.wal.sync(0.2)
    log.wait(lambda: log.durable == {A: 20} and not log.full)
    assert log.wal.sync(WAIT_S)
    assert log.seqs(A) == list(range(1, 21))
    (record,) = (one for one in caplog.records if one.name == "trackd")
    assert record.exc_info is not None
    log.wal.close()
    assert recovery.recover(directory, 1).state.writers[A].acked == 10


@pytest.mark.usefixtures("hasty")
def test_a_new_segment_that_fails_for_another_reason_than_the_disk_is_begun_again(
    logs: list[Log], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(logs, directory, segment_bytes=300)
    log.put(A, 1, 100)
    log.wait(lambda: log.durable == {A: 100})
    with monkeypatch.context() as patch:
        patch.setattr(frames, "encode_checkpoints", None)
        log.put(A, 101, 10)
        log.wait(lambda: "TypeError" in log.full)
        assert files.numbers(directory) == list(log.wal.segments), "the attempt is removed"
    log.wait(lambda: log.durable == {A: 110})
    log.wal.close()
    assert recovery.recover(directory, 1).state.writers[A].received == 110

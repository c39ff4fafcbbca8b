"""trackd doctor looks at the real machine, takes nothing from anybody, leaves nothing behind, and is done in time."""

import errno
import fcntl
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from trackd_daemon.cli import doctor
from trackd_daemon.cli.doctor import backlog, files, locks
from trackd_daemon.cli.doctor.gather import gather
from trackd_daemon.doctor import facts
from trackd_daemon.doctor.findings import is_trouble
from trackd_daemon.wal import frames
from trackd_proto import segment, spool
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2


@pytest.fixture
def where(tmp_path: Path) -> Instance:
    """A private instance directory, with a spool and a log."""
    found = Instance(tmp_path / "home", "host")
    places.prepare(found)
    found.spool.mkdir(mode=0o700)
    found.wal.mkdir(mode=0o700)
    return found


# ---------------------------------------------------------------------------------------------- time


def test_a_probe_that_hangs_or_fails_costs_its_own_line_only() -> None:
    release = threading.Event()
    started = time.monotonic()
    try:
        seen = gather({"hangs": release.wait, "fails": lambda: 1 // 0, "works": lambda: 7}, 0.2)
    finally:
        release.set()
    assert time.monotonic() - started < 2
    assert seen["works"] == 7
    assert seen["hangs"] == facts.Failed("no answer within 0.2 s")
    assert seen["fails"] == facts.Failed("ZeroDivisionError: integer division or modulo by zero")


def test_what_could_not_be_looked_at_is_said_and_is_trouble(where: Instance) -> None:
    names = doctor.probes(where, Settings())
    found = doctor.diagnose({name: facts.Failed("no answer within 2 s") for name in names}, where, Settings())
    assert {f.check for f in found} == set(names)
    assert all("no answer within 2 s" in f.text and f.advice for f in found)
    assert {f.check for f in found if not is_trouble([f])} == {"GPU"}


def test_a_home_that_is_not_there_is_no_trouble_and_stays_away(tmp_path: Path) -> None:
    where = Instance(tmp_path / "none" / "home", "host")
    seen = gather(doctor.probes(where, Settings()), 10)
    found = [f for f in doctor.diagnose(seen, where, Settings()) if f.check not in ("disk space", "inodes")]
    assert found and not is_trouble(found), found
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- locks


@contextmanager
def flocked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_the_holder_of_the_lock_is_named_and_keeps_it(where: Instance) -> None:
    assert locks.see_lock(where) == facts.Lock(str(where.daemon_lock), False)
    assert not where.daemon_lock.exists()
    with flocked(where.daemon_lock):
        assert locks.see_lock(where) == facts.Lock(str(where.daemon_lock), True, (os.getpid(),))
        assert locks.see_lock(where).is_held, "looking took the lock away"
    assert not locks.see_lock(where).is_held


def test_a_file_system_without_locks_is_said(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    where.daemon_lock.touch()

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert locks.see_lock(where).error == "No locks available"


def test_holders_by_the_kernels_table() -> None:
    device = os.makedev(0xFE, 0)
    table = """1: POSIX  ADVISORY  WRITE 11 fe:00:99 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:00:99 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 fe:00:99 0 EOF
3: FLOCK  ADVISORY  WRITE 14 fe:01:99 0 EOF
4: FLOCK  ADVISORY  WRITE 0 fe:00:98 0 EOF
"""
    assert locks.holders(table, device, 99) == (12,)
    assert locks.holders(table, os.makedev(0, 7), 99) == (12, 14), "btrfs: another device, the same inode"
    assert locks.holders(table, device, 98) == () == locks.holders("", device, 99)


def test_a_locked_byte_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.write_bytes(bytes(8))
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 3); print(1, flush=True)"
    )
    program += "; input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline() == b"1\n"
        assert locks.is_byte_locked(path, 3) is True
        assert locks.is_byte_locked(path, 4) is False
        holder.stdin.write(b"\n")
    assert locks.is_byte_locked(path, 3) is False
    assert locks.is_byte_locked(tmp_path / "none", 3) is None


# ---------------------------------------------------------------------------------------------- files


def test_places_as_they_are(where: Instance, tmp_path: Path) -> None:
    where.daemon_lock.touch(0o604)
    where.store.symlink_to(tmp_path)
    where.wal.chmod(0o755)
    seen = {Path(place.path).name: place for place in files.see_places(where).places}
    assert (seen["home"].kind, seen["home"].is_writable) == ("directory", True)
    assert seen["store"].kind == "link" and seen["epoch"].kind == "missing"
    assert (seen["daemon.lock"].mode, seen["wal"].mode) == (0o604, 0o755)
    assert files.see_places(where).user == os.geteuid() == seen["wal"].owner


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        "2 1 0:2 / /home rw - nfs4 server:/home rw",
        r"3 2 0:3 / /home/a\040b rw - tmpfs none rw",
        "4 1 0:4 / /home rw - xfs /dev/b rw",
    ]
    assert files.kind_of("/var/x", lines) == "ext4"
    assert files.kind_of("/homes", lines) == "ext4"
    assert files.kind_of("/home/me", lines) == "xfs", "mounted over the first"
    assert files.kind_of("/home/a b/c", lines) == "tmpfs"
    assert files.kind_of("/x", []) == ""


def test_files_can_be_mapped_here_and_nothing_is_left(where: Instance) -> None:
    before = where.spool.stat().st_mtime_ns
    memory = files.see_memory(where)
    assert memory.allocates in (True, None) and memory.path == str(where.spool)
    assert where.spool.stat().st_mtime_ns == before and not list(where.spool.iterdir())


@pytest.mark.parametrize(
    ("module_call", "code", "allocates"), [("posix_fallocate", errno.ENOSPC, False), ("open", errno.EOPNOTSUPP, None)]
)
def test_a_file_system_that_cannot(
    where: Instance, monkeypatch: pytest.MonkeyPatch, module_call: str, code: int, allocates: bool | None
) -> None:
    if module_call == "posix_fallocate" and files.see_memory(where).allocates is None:
        pytest.skip("no unnamed files on this file system")
    fired = []

    def fail(*_: Any, **__: Any) -> None:
        fired.append(1)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, module_call, fail)
    memory = files.see_memory(where)
    monkeypatch.undo()
    assert fired and memory.allocates is allocates and os.strerror(code) in memory.error


def test_a_kernel_without_the_fork_guard(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MADV_WIPEONFORK", 9999)
    assert files.see_memory(where).wipes_on_fork is False


def write_log(where: Instance, number: int, *frames_: tuple[int, bytes], created_ns: int = 1) -> Path:
    uuid = bytes(16)
    salt = segment.salt_of(uuid, number)
    data = [segment.encode_header(uuid, number, number * 100, created_ns)]
    data += [segment.encode_frame(kind, number * 100 + i, body, salt) for i, (kind, body) in enumerate(frames_)]
    path = where.wal / f"{number:012d}.wal"
    path.write_bytes(b"".join(data))
    return path


def test_times_come_from_headers_and_from_the_disk(where: Instance) -> None:
    ahead = time.time_ns() + 10**12
    path = write_log(where, 1, created_ns=ahead)
    clock = files.see_clock(where)
    assert facts.Stamp(str(path), ahead // 1000) in clock.stamps
    os.utime(where.daemon_lock.parent / "wal", ns=(ahead, ahead))
    assert facts.Stamp(str(where.wal), ahead // 1000) in files.see_clock(where).stamps


def test_newer_formats_are_found(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    (where.spool / "s").mkdir()
    monkeypatch.setattr(segment, "WAL_FORMAT", 7)
    path = write_log(where, 1)
    monkeypatch.undo()
    head = write_head(where, format=9)
    assert files.see_formats(where).newer == (facts.Newer(str(path), 7, 1), facts.Newer(str(head), 9, 1))


def test_cookies_are_looked_at_and_never_made(where: Instance, tmp_path: Path) -> None:
    settings = Settings(upstream_cookie=str(tmp_path / "theirs"))
    assert [c.state for c in files.see_cookies(where, settings)] == ["missing", "missing"]
    assert not where.cookie.exists()
    instance.load_cookie(where)
    (tmp_path / "theirs").write_text("short")
    (tmp_path / "theirs").chmod(0o600)
    own, theirs = files.see_cookies(where, settings)
    assert own.state == "ok" and theirs.state == "bad" and "is damaged" in theirs.error
    where.cookie.chmod(0o640)
    assert "open to other users" in files.see_cookies(where, Settings())[0].error


# ---------------------------------------------------------------------------------------------- what is not sent


def write_head(where: Instance, name: str = "aa", session: str = "s", **words: int) -> Path:
    values = [0] * 24
    values[spool.MAGIC], values[spool.FORMAT] = spool.MAGIC_WORD, 1
    for word, value in words.items():
        values[getattr(spool, word.upper())] = value
    path = where.spool / session / f"{name}.head"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("=24Q", *values).ljust(spool.HEAD_BYTES, b"\0"))
    return path


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_spools_of_the_living_and_the_dead(where: Instance) -> None:
    mine, dead = os.getpid(), gone()
    ticks = backlog._start_ticks(mine)
    write_head(where, "a", pid=mine, start_ticks=ticks, published=9, durable=4, courier_pid=mine)
    write_head(where, "b", pid=mine, start_ticks=ticks + 1, published=9, assigned=11, committed=4, courier_pid=dead)
    write_head(where, "c", pid=dead, published=3)
    write_head(where, "d", pid=mine, pid_namespace=1, courier_pid=dead)
    (where.spool / "s" / "e.head").write_bytes(b"short")
    write_head(where, "f", magic=1)
    seen = backlog.see_backlog(where)
    assert [(lane.owner, lane.has_courier, lane.unsent) for lane in seen.lanes] == [
        ("alive", True, 5), ("dead", False, 7), ("dead", False, 3), ("unknown", True, 0)
    ]  # fmt: skip
    assert len(seen.unreadable) == 2 and "e.head" in seen.unreadable[0] and "f.head" in seen.unreadable[1]


def test_owners_in_other_containers_are_known_by_their_lock(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    write_head(where, "a", pid=1, pid_namespace=1, alive_offset=5)
    for is_locked, owner in ((True, "alive"), (False, "dead"), (None, "unknown")):
        monkeypatch.setattr(locks, "is_byte_locked", lambda path, offset, answer=is_locked: answer)
        assert backlog.see_backlog(where).lanes[0].owner == owner


def data(writer: bytes, first: int, count: int) -> tuple[int, bytes]:
    batch = ingest_pb2.Batch(writer_id=writer, first_seq=first, count=count, route="embedded")
    return segment.DATA, batch.SerializeToString()


def checkpoint(writer: bytes, received: int, acked: int) -> tuple[int, bytes]:
    row = frames.Checkpoint(writer, received, acked, "embedded", "p", "r", 0)
    return segment.CKPT, frames.encode_checkpoints([row])


def test_the_log_of_a_daemon_that_does_not_run_is_counted(where: Instance) -> None:
    one, two = b"1" * 16, b"2" * 16
    assert backlog.unsent_in_log(where.wal) == (0, 0)
    write_log(where, 1, data(one, 1, 50))
    assert backlog.unsent_in_log(where.wal)[0] == 50
    acks = (segment.ACK, frames.encode_acks({one: 60}))
    write_log(where, 2, checkpoint(one, 50, 20), data(one, 51, 50), data(two, 1, 5), acks)
    assert backlog.unsent_in_log(where.wal)[0] == 45
    write_log(where, 3, data(two, 6, 5))
    records, size = backlog.unsent_in_log(where.wal)
    assert (records, size) == (50, sum(p.stat().st_size for p in where.wal.iterdir()))
    for number in (1, 2):
        (where.wal / f"{number:012d}.wal").unlink()
    assert backlog.unsent_in_log(where.wal)[0] is None, "what came before is not known"
    with flocked(where.daemon_lock):
        assert backlog.see_backlog(where).wal_bytes == 0, "the daemon itself says it"


def test_offline_runs_are_listed(where: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, where.home):
        run = root / "trackd-runs" / "run-1-a"
        run.mkdir(parents=True)
        (run / "x.wal").write_bytes(b"12345")
        (run / "logged.json").write_text('{"writers": {"x": {"last_seq": 7}, "y": {"last_seq": 1}}}')
        (root / "trackd-runs" / "run-2-online").mkdir()
    found = backlog.see_backlog(where).offline
    assert [(o.size, o.records) for o in found] == [(5, 8), (5, 8)]
    for damaged in ("", "[]", '{"writers": {"x": {}}}', "[" * 100_000):
        (run / "logged.json").write_text(damaged)
        assert [o.records for o in backlog.see_backlog(where).offline] == [8, 0]

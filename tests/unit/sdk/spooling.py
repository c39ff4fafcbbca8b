"""Reads spools back the way the courier does, without a courier."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from trackd import spool as files
from trackd.courier.lanes import SpoolLane
from trackd.courier.session import ServedSession
from trackd.courier.tail import Item
from trackd.lane import Lane
from trackd_proto import batch, records, spool, version

TARGET = spool.Target(
    mode="online",
    route="embedded",
    project="p",
    run_id="r",
    run_dir="/nonexistent",
    attempt="a" * 32,
    attempt_start_us=1,
)
START = {"project": "p", "run_id": "r", "attempt": "a" * 32, "attempt_start_us": 1, "writer": {"host": "h"}}
QUOTA = 1 << 30


def make_lane(directory: Path, quota: int = QUOTA) -> Lane:
    return Lane(directory, TARGET, START, quota)


def make_session(directory: Path, *, is_dead: bool = False) -> Path:
    """A session directory of this process, or of one that is gone."""
    directory.mkdir(parents=True)
    ticks = files.start_ticks(os.getpid()) + is_dead
    info = spool.SessionInfo(version.SPOOL_FORMAT, "", "", os.getpid(), 0, "", ticks, files.pid_namespace())
    (directory / "session.json").write_bytes(msgspec.json.encode(info))
    return directory


def served(directory: Path) -> ServedSession:
    """The session as a courier has it that has just begun."""
    session = ServedSession.claim(directory)
    assert session is not None
    return session


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process may open nothing (EMFILE): 0 to 2 are taken, and poll(2) wants at least one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_items(directory: Path, writer_id: bytes) -> list[Item]:
    """Everything a courier would send of one writer, in order, freeing nothing."""
    lane = SpoolLane(directory / f"{writer_id.hex()}.head")
    lane.flight.window_bytes = 1 << 40
    items = []
    while item := lane.next_item():
        items.append(item)
    lane.close()
    expected = 1
    for item in items:
        assert item.first_seq == expected, f"gap or repetition at seq {expected}: {item.first_seq}"
        expected = item.next_seq
    return items


def read_records(directory: Path, writer_id: bytes) -> list[list[Any]]:
    """The decoded records of one writer; fails if anything was declared lost."""
    found: list[list[Any]] = []
    for item in read_items(directory, writer_id):
        assert not item.reason, f"seqs {item.first_seq}..{item.next_seq - 1} were declared lost ({item.reason})"
        found += batch.decode_all(item.data, item.count)
    return found


def read_rows(directory: Path, writer_id: bytes) -> list[tuple[int, dict[str, Any]]]:
    """(step or ordinal, values) of the rows of one writer."""
    rows = [r for r in read_records(directory, writer_id) if r[0] in (records.ROW, records.ROW_ORDINAL)]
    return [(r[2], r[3]) for r in rows]


def writers(directory: Path) -> dict[bytes, spool.Target]:
    """Every writer in a session directory."""
    found = {}
    for path in sorted(directory.glob("*.head")):
        found[bytes.fromhex(path.stem)] = spool.get_target(path.read_bytes())
    return found

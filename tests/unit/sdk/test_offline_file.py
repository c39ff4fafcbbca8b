"""The courier's files of offline runs on a disk that is full or broken: nothing lost, nobody held up."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from trackd.courier import offline
from trackd.courier.lanes import SpoolLane
from trackd.courier.offline import OfflineFile
from trackd.lane import Lane
from trackd_proto import batch, segment
from trackd_proto.compress import Compressor, Decompressor
from trackd_proto.v1 import ingest_pb2

from .spooling import QUOTA, START, TARGET


class Recorded:
    """A lane with rows in it, and the offline file that takes them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        target = msgspec.structs.replace(TARGET, mode="offline", run_dir=str(directory))
        self.lane = Lane(directory, target, START, QUOTA)
        self.logged = 0
        self.path = directory / f"{self.lane.writer_id.hex()}.wal"
        self.file = OfflineFile(SpoolLane(directory / f"{self.lane.writer_id.hex()}.head"), Compressor())

    def log(self, count: int) -> None:
        for _ in range(count):
            self.lane.row({"i": self.logged})
            self.logged += 1

    def stored(self) -> list[int]:
        rows = []
        for found in segment.scan(self.path.read_bytes()):
            assert isinstance(found, segment.Frame), found
            message = ingest_pb2.Batch.FromString(found.payload)
            assert not message.loss_reason
            data = Decompressor().decompress(message.data, message.raw_bytes)
            rows += [record[3]["i"] for record in batch.decode_all(data, message.count) if "i" in record[3]]
        return rows


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, is_bad: Callable[[int], bool]) -> list[int]:
    """Let a call of `os` fail for the descriptors that are bad; the descriptors for which it did."""
    fired: list[int] = []
    real = getattr(os, name)

    def call(fd: int, *arguments: object) -> object:
        if is_bad(fd):
            fired.append(fd)
            raise OSError(number, os.strerror(number))
        return real(fd, *arguments)

    monkeypatch.setattr(os, name, call)
    return fired


@pytest.fixture
def two(tmp_path: Path) -> tuple[Recorded, Recorded]:
    return Recorded(tmp_path / "one"), Recorded(tmp_path / "other")


def test_a_full_disk_holds_up_nobody_and_loses_nothing(
    two: tuple[Recorded, Recorded], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = two
    one.log(10)
    one.file.pump()
    is_full = True
    fired = failing(monkeypatch, "pwrite", errno.ENOSPC, lambda fd: is_full and fd == one.file._fd)
    began = time.monotonic()
    for _ in range(20):
        one.log(10)
        other.log(10)
        assert one.file.pump() == 0
        assert other.file.pump() > 0
    assert fired
    assert time.monotonic() - began < 0.5, "it does not wait for space"
    assert other.stored() == list(range(200))
    assert "No space left" in one.file.trouble
    assert capfd.readouterr().err.count("No space left") == 1, "said once"
    is_full = False
    one.file._retry_at = 0.0
    assert one.file.pump() > 0
    assert one.file.trouble == ""
    assert one.stored() == list(range(210))


def test_what_could_not_be_synced_is_written_again_and_only_then_called_durable(
    two: tuple[Recorded, Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr(offline, "_SYNC_S", 0.0)
    one.log(10)
    one.file.pump()
    durable = one.lane.watermarks().durable
    assert durable == 11, "with the START record"
    is_bad = True
    fired = failing(monkeypatch, "fdatasync", errno.EIO, lambda _: is_bad)
    one.log(10)
    size = one.path.stat().st_size
    one.file.pump()
    assert fired
    assert one.lane.watermarks().durable == durable
    assert one.path.stat().st_size > size, "it had been written"
    is_bad = False
    one.file._retry_at = 0.0
    with monkeypatch.context() as patch:
        written = []
        real = os.pwrite
        patch.setattr(os, "pwrite", lambda fd, data, at: (written.append(at), real(fd, data, at))[1])
        one.file.pump()
        assert written == [size], "not believed because the page cache has it"
    assert one.lane.watermarks().durable == 21
    assert one.stored() == list(range(20))


def test_a_directory_that_cannot_be_written_at_first_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Recorded(tmp_path / "one")
    one.log(10)
    is_full = True
    fired = failing(monkeypatch, "pwrite", errno.EDQUOT, lambda _: is_full)
    assert one.file.pump() == 0
    assert fired
    is_full = False
    one.file._retry_at = 0.0
    assert one.file.pump() > 0
    assert one.stored() == list(range(10))

"""Power fails while frames are being written: of each writer the last records are missing and none in between.

Damage to what had been synced costs that frame alone.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sim.disk import SimDisk
from support import byte_cases
from trackd_daemon.wal import files, recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import batch as framing
from trackd_proto import segment
from trackd_proto.v1 import ingest_pb2

NEVER, ALWAYS = 0.9, 0.0


class Chance(random.Random):
    """Not by chance: SimDisk asks `random() < 0.5` for every piece of what was not synced."""

    def __init__(self, *answers: float, rest: float = NEVER) -> None:
        super().__init__(0)
        self._answers = list(answers)
        self._rest = rest

    def random(self) -> float:
        return self._answers.pop(0) if self._answers else self._rest


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    (tmp_path / "wal").mkdir(mode=0o700)
    return tmp_path / "wal"


@pytest.fixture
def fast_place() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def _batch(seq: int, size: int = 600) -> ingest_pb2.Batch:
    data = framing.join([random.Random(seq).randbytes(size)])
    return ingest_pb2.Batch(
        writer_id=b"w" * 16, first_seq=seq, count=1, data=data, raw_bytes=len(data),
        route="embedded", project="p", run_id="r",
    )  # fmt: skip


def _started(wal: Path, disk: files.Disk) -> LogWriter:
    log = LogWriter(wal, recovery.recover(wal, 1), disk=disk)
    log.start()
    return log


def _write(log: LogWriter, *seqs: int) -> None:
    for seq in seqs:
        log.write([_batch(seq)], {})


def _seqs(wal: Path) -> list[int]:
    """What a daemon that starts now reads of the log."""
    log = LogWriter(wal, recovery.recover(wal, 1))
    end = log.start()
    source = RouteReader(wal, "embedded", lambda: log.segments)
    batches, is_over = source.read(end, 1 << 20)
    source.close()
    log.close()
    assert is_over
    return [batch.first_seq for batch in batches]


def test_what_a_power_loss_left_behind_a_gap_was_never_durable_and_is_not_read(wal: Path) -> None:
    disk = SimDisk(Chance(rest=ALWAYS))
    log = _started(wal, disk)
    _write(log, 1, 2)
    log.sync()
    _write(log, 3, 4, 5)
    log.close()
    # The sectors of the mark and of 3 are lost, all that follows is there.
    disk.rng = Chance(NEVER, NEVER, NEVER, rest=ALWAYS)
    disk.power_loss()
    (damage,) = [f for f in _scan(wal, 1) if isinstance(f, segment.Damage)]
    left = [f for f in _scan(wal, 1) if isinstance(f, segment.Frame) and f.offset > damage.offset]
    assert left, "the fault has fired: there is a gap, and whole frames behind it"
    assert _seqs(wal) == [1, 2]


def test_a_power_loss_before_the_first_sync_of_a_segment(wal: Path) -> None:
    disk = SimDisk(Chance(rest=ALWAYS))
    log = _started(wal, disk)
    _write(log, 1, 2, 3)
    log.close()
    disk.rng = Chance(ALWAYS, ALWAYS, ALWAYS, NEVER, rest=ALWAYS)
    disk.power_loss()
    assert any(isinstance(found, segment.Damage) for found in _scan(wal, 1)), "the fault has fired"
    assert _seqs(wal) in ([], [1], [1, 2]), "no hole"


def test_every_flipped_bit_of_a_log_whose_daemon_was_killed_costs_one_frame_at_most(fast_place: Path) -> None:
    tally = byte_cases.flips_recovered(fast_place, 31)
    assert tally.cases > 200
    assert tally.violations == []
    assert tally.lost_most == 1


def test_a_log_of_an_older_version_has_no_marks_and_keeps_what_follows_a_gap(wal: Path) -> None:
    log = _started(wal, files.RealDisk())
    _write(log, 1, 2, 3)
    log.sync()
    log.close()
    path = files.path_of(wal, 1)
    image = bytearray(path.read_bytes())
    header = segment.decode_header(bytes(image))
    image[: segment.HEADER_BYTES] = segment.encode_header(header.wal_uuid, 1, header.base_lsn, header.created_ns)
    found = [f for f in segment.scan(bytes(image)) if isinstance(f, segment.Frame)]
    second, mark = [f for f in found if f.type == segment.DATA][1], found[-1]
    assert mark.type == segment.MARK
    del image[mark.offset :]
    image[second.offset + segment.FRAME_BYTES] ^= 1
    path.write_bytes(image)
    assert _seqs(wal) == [1, 3]


def test_a_segment_that_was_copied_and_removed_does_not_come_back(wal: Path) -> None:
    disk = SimDisk(Chance(rest=ALWAYS))
    log = _started(wal, disk)
    _write(log, 1, 2, 3)
    log.close()
    disk.crash()  # the daemon is killed; its successor copies what is in the page cache and removes the segment
    log = _started(wal, disk)
    assert not files.path_of(wal, 1).exists()
    log.close()
    disk.rng = Chance(rest=NEVER)  # whatever name may come back does, with nothing in it that was not synced
    disk.power_loss()
    assert disk.fired["power loss"] == 1
    assert files.numbers(wal) == [2]
    assert _seqs(wal) == [1, 2, 3]


def _scan(wal: Path, number: int) -> list[segment.Frame | segment.Damage]:
    return list(segment.scan(files.path_of(wal, number).read_bytes()))

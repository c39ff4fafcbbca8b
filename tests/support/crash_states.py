"""T21: the states in which a power loss may leave the log, and whether recovery makes the best of each.

A `Recorder` runs the log's system calls on the simulated disk and remembers after each of them what is safe and what is
not. `States` makes of one such moment what a disk may have kept: each sector that was not synced, each truncation, each
name that was not synced is there or is not. All combinations where there are few, else a sample.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from sim.disk import SimDisk
from trackd_daemon.wal import reader, recovery
from trackd_daemon.wal import writer as log_writer
from trackd_proto import batch as framing
from trackd_proto import segment
from trackd_proto.compress import Decompressor
from trackd_proto.v1 import ingest_pb2

_ALL_UP_TO: Final = 7
"""Decisions of which all combinations are tried."""
_NOW_US: Final = 1_700_000_000_000_000
Expected = Callable[[bytes, int], bytes]
"""The record that a writer gave a seq."""


@dataclass
class Moment:
    """What is on the disk, safely or not, after a system call; what had been promised by then."""

    after: str
    files: dict[Path, Any]
    durable: dict[bytes, int]
    committed: dict[bytes, int]


class Recorder(SimDisk):
    """A simulated disk that remembers each moment."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.moments: list[Moment] = []
        self.durable: dict[bytes, int] = {}
        """What has been called durable, by writer."""
        self.committed: dict[bytes, int] = {}
        """What the hub has."""

    def remember(self, after: str) -> None:
        """This is a moment at which the power may fail."""
        files = {path: dataclasses.replace(file, dirty=list(file.dirty)) for path, file in self._files.items()}
        self.moments.append(Moment(after, files, dict(self.durable), dict(self.committed)))

    def open(self, path: Path, flags: int) -> int:
        """Remembered."""
        descriptor = super().open(path, flags)
        self.remember("open")
        return descriptor

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Remembered."""
        try:
            return super().pwrite(descriptor, data, offset)
        finally:
            self.remember("pwrite")

    def truncate(self, descriptor: int, size: int) -> None:
        """Remembered."""
        super().truncate(descriptor, size)
        self.remember("truncate")

    def sync(self, descriptor: int) -> None:
        """Remembered."""
        try:
            super().sync(descriptor)
        finally:
            self.remember("sync")

    def sync_directory(self, path: Path) -> None:
        """Remembered."""
        super().sync_directory(path)
        self.remember("sync directory")

    def unlink(self, path: Path) -> None:
        """Remembered."""
        super().unlink(path)
        self.remember("unlink")


class _Decisions(random.Random):
    """In place of chance: given answers first, then those of `rest`; counts how often it was asked."""

    def __init__(self, given: list[bool], rest: Callable[[], bool]) -> None:
        super().__init__(0)
        self.made: list[bool] = []
        self._given = given
        self._rest = rest

    def random(self) -> float:
        """Below one half: yes."""
        asked = len(self.made)
        self.made.append(self._given[asked] if asked < len(self._given) else self._rest())
        return 0.0 if self.made[-1] else 0.9


@dataclass
class Tally:
    """What was tried and what was wrong."""

    states: int = 0
    """Distinct ones."""
    traces: int = 0
    moments: int = 0
    exhausted: int = 0
    """Moments of which every state was tried."""
    lossy: int = 0
    """States in which something that was not durable was gone, as it may be: the fault has fired."""
    torn: int = 0
    """States in which recovery met damage."""
    holes: int = 0
    """States in which what was missing was no suffix, though never called durable."""
    problems: list[str] = field(default_factory=list)


class States:
    """Makes and judges the states of moments, in a directory of its own."""

    def __init__(
        self,
        wal: Path,
        expected: Expected,
        tally: Tally,
        rng: random.Random,
        *,
        segment_bytes: int,
        route: str = "embedded",
    ) -> None:
        """`wal`: where the recorded files stood; it is emptied again and again."""
        self.tally = tally
        self._wal = wal
        self._expected = expected
        self._rng = rng
        self._segment_bytes = segment_bytes
        self._route = route
        self._decompressor = Decompressor()

    def try_all(self, moments: list[Moment], samples: int) -> None:
        """Every moment: all of its states if they are few, else `samples` of them."""
        self.tally.traces += 1
        for moment in moments:
            self.tally.moments += 1
            seen: set[bytes] = set()
            for decisions in self._plans(moment, samples):
                contents = self._make(moment, decisions)
                if contents not in seen:
                    seen.add(contents)
                    self.tally.states += 1
                    self._judge(moment, decisions)

    def _plans(self, moment: Moment, samples: int) -> Iterator[_Decisions]:
        """The first asks how many decisions there are; they may depend on each other, so all are walked in order."""
        first = _Decisions([], lambda: False)
        yield first
        if len(first.made) > _ALL_UP_TO:
            for _ in range(samples):
                share = self._rng.choice((0.05, 0.3, 0.5, 0.7, 0.95, 1.0))
                yield _Decisions([], lambda share=share: self._rng.random() < share)  # type: ignore[misc]
            return
        self.tally.exhausted += 1
        made = first.made
        while False in made:  # the next one in the order of a binary counter
            last = len(made) - 1 - made[::-1].index(False)
            plan = _Decisions([*made[:last], True], lambda: False)
            yield plan
            made = plan.made

    def _make(self, moment: Moment, decisions: _Decisions) -> bytes:
        shutil.rmtree(self._wal, ignore_errors=True)
        self._wal.mkdir(mode=0o700)
        disk = SimDisk(decisions)
        disk._files = {path: dataclasses.replace(file, dirty=list(file.dirty)) for path, file in moment.files.items()}
        disk.power_loss()
        digest = hashlib.blake2b(digest_size=16)
        for path in sorted(self._wal.iterdir()):
            digest.update(path.name.encode() + hashlib.blake2b(path.read_bytes()).digest())
        return digest.digest()

    def _judge(self, moment: Moment, decisions: _Decisions) -> None:
        try:
            problems = self._recover(moment)
        except Exception as error:  # whatever it is: no state may stop the daemon
            problems = [f"{type(error).__name__}: {error}"]
        self.tally.problems += [f"after {moment.after}, decisions {decisions.made}: {text}" for text in problems]

    def _recover(self, moment: Moment) -> list[str]:
        found = recovery.recover(self._wal, _NOW_US)
        self.tally.torn += any("damaged" in line for line in found.warnings)
        log = log_writer.LogWriter(self._wal, found, segment_bytes=self._segment_bytes)
        try:
            end = log.start()
            problems, seqs = self._read(log, end)
        finally:
            log.close()
        for writer_id in {*moment.durable, *moment.committed, *seqs}:
            committed = moment.committed.get(writer_id, 0)
            there = seqs.get(writer_id, set()) | set(range(1, committed + 1))
            durable = moment.durable.get(writer_id, 0)
            if lost := set(range(1, durable + 1)) - there:
                problems.append(f"I1p: durable up to {durable}, gone are {sorted(lost)[:5]}")
            if there and len(there) != max(there):
                self.tally.holes += 1
                problems.append(f"I1p: no suffix is missing: {sorted(set(range(1, max(there))) - there)[:5]}")
            known = found.state.writers.get(writer_id)
            if known is not None and max(known.received, committed) > max(there, default=0):
                problems.append(f"the log says {known.received}, it holds {max(there, default=0)}")
        highest = {w: max(s) for w, s in seqs.items()}
        self.tally.lossy += any(highest.get(w, 0) < top for w, top in _written(moment).items())
        return problems

    def _read(self, log: log_writer.LogWriter, end: Any) -> tuple[list[str], dict[bytes, set[int]]]:
        """I8: what is read is what was written."""
        problems: list[str] = []
        seqs: dict[bytes, set[int]] = {}
        source = reader.RouteReader(self._wal, self._route, lambda: log.segments)
        is_over = False
        while not is_over:
            batches, is_over = source.read(end, 1 << 20)
            for one in batches:
                data = self._decompressor.decompress(one.data, one.raw_bytes) if one.codec else one.data
                wanted = range(one.first_seq, one.first_seq + one.count)
                if data != framing.join([self._expected(one.writer_id, seq) for seq in wanted]):
                    problems.append(f"I8: wrong bytes in {wanted}")
                seqs.setdefault(one.writer_id, set()).update(wanted)
        source.close()
        return problems, seqs


def _written(moment: Moment) -> dict[bytes, int]:
    """The highest seq that was written by then, by writer, whether it is safe or not."""
    tops: dict[bytes, int] = {}
    for file in moment.files.values():
        if file.is_unlinked:
            continue
        content = bytearray(file.safe or b"")
        for offset, piece in file.dirty:
            if piece is None:
                del content[offset:]
            else:
                content[len(content) : offset] = bytes(max(0, offset - len(content)))
                content[offset : offset + len(piece)] = piece
        for frame in segment.scan(bytes(content)):
            if isinstance(frame, segment.Frame) and frame.type == segment.DATA:
                one = ingest_pb2.Batch.FromString(frame.payload)
                tops[one.writer_id] = max(one.first_seq + one.count - 1, tops.get(one.writer_id, 0))
    return tops


class Workload:
    """Some thirty operations on a real log writer: appends of two writers, syncs, acks, rolls, a killed daemon."""

    SEGMENT_BYTES = 1500
    WRITERS = (b"a" * 16, b"b" * 16)

    def __init__(self, seed: int, wal: Path) -> None:
        self.rng = random.Random(seed)
        self.disk = Recorder(random.Random(seed + 1))
        self._wal = wal
        self._next = dict.fromkeys(self.WRITERS, 1)
        if seed % 3 == 1:
            self.disk.sync_fails = self.disk.write_fails = 0.05

    @staticmethod
    def expected(writer_id: bytes, seq: int) -> bytes:
        """The record; some are larger than a sector."""
        chance = random.Random(writer_id[0] << 32 | seq)
        return chance.randbytes(chance.choice((8, 40, 200, 700)))

    def run(self, operations: int) -> list[Moment]:
        """The moments of a trace."""
        log = self._start()
        for _ in range(operations):
            action = self.rng.choices(("write", "sync", "commit", "kill"), (10, 6, 3, 1))[0]
            if action == "write":
                self._write(log)
            elif action == "sync" and log.is_dirty:
                self._sync(log)
            elif action == "commit":
                self._commit(log)
            elif action == "kill":
                log.close()
                self.disk.crash()
                log = self._start()
            self._tell(log)
        log.close()
        self.disk.crash()
        return self.disk.moments

    def _sync(self, log: log_writer.LogWriter) -> None:
        try:
            log.sync()
        except OSError as error:
            log.back_off(error)

    def _start(self) -> log_writer.LogWriter:
        """As often as it takes on a bad disk."""
        while True:
            try:
                return self._try_to_start()
            except OSError:
                self.disk.crash()

    def _try_to_start(self) -> log_writer.LogWriter:
        found = recovery.recover(self._wal, _NOW_US)
        log = log_writer.LogWriter(self._wal, found, segment_bytes=self.SEGMENT_BYTES, disk=self.disk)
        log.start()
        for writer in found.state.writers.values():
            self._next[writer.writer_id] = max(writer.received, self.disk.committed.get(writer.writer_id, 0)) + 1
            self.disk.durable[writer.writer_id] = max(writer.received, self.disk.durable.get(writer.writer_id, 0))
        return log

    def _write(self, log: log_writer.LogWriter) -> None:
        batches = []
        for _ in range(self.rng.randrange(1, 4)):
            writer_id = self.rng.choice(self.WRITERS)
            first, count = self._next[writer_id], self.rng.randrange(1, 4)
            data = framing.join([self.expected(writer_id, seq) for seq in range(first, first + count)])
            self._next[writer_id] = first + count
            about = {"route": "embedded", "project": "p", "run_id": "r", "raw_bytes": len(data)}
            batches.append(
                ingest_pb2.Batch(writer_id=writer_id, first_seq=first, count=count, data=data, **about)  # type: ignore[arg-type]
            )
        before = {b.writer_id: b.first_seq for b in reversed(batches)}
        try:
            log.write(batches, {})
        except OSError as error:  # they are handed in again later
            self._next |= before
            log.back_off(error)

    def _commit(self, log: log_writer.LogWriter) -> None:
        """The hub takes what is durable and says so."""
        news = {w: seq for w, seq in self.disk.durable.items() if seq > self.disk.committed.get(w, 0)}
        self.disk.committed |= news
        try:
            log.write([], news)
        except OSError as error:
            log.back_off(error)

    def _tell(self, log: log_writer.LogWriter) -> None:
        for writer_id, seq in log.take_progress().durable.items():
            self.disk.durable[writer_id] = max(seq, self.disk.durable.get(writer_id, 0))
        self.disk.remember("an operation")


def simulated(directory: Path, states: int, seed: int = 1, samples: int = 12) -> Tally:
    """At least so many states, of as many traces as that takes."""
    tally = Tally()
    wal = directory / "wal"
    with mock.patch.object(log_writer, "_RESERVE_BYTES", 4096):
        while tally.states < states and len(tally.problems) < 20:
            shutil.rmtree(wal, ignore_errors=True)
            wal.mkdir(mode=0o700)
            number = seed + tally.traces
            workload = Workload(number, wal)
            moments = workload.run(30)
            judge = States(wal, workload.expected, tally, random.Random(number), segment_bytes=workload.SEGMENT_BYTES)
            before = len(tally.problems)
            judge.try_all(moments, samples)
            tally.problems[before:] = [f"seed {number}: {text}" for text in tally.problems[before:]]
    return tally

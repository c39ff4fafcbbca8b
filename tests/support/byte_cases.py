"""T4 and T5: every torn write and every damaged byte of small logs and spools, judged by what reaches the next hop.

`step` thins the cases out: the short form in the test suite takes every few bytes or bits, scripts/torture-bytes all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trackd_daemon.wal import files, recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import batch as batch_format
from trackd_proto import segment
from trackd_proto.segment import Damage, Frame, UnsupportedVersion
from trackd_proto.v1 import ingest_pb2

from support import corpora, damaged
from support.corpora import WRITER, Corpus


@dataclass
class Tally:
    """One line of the table."""

    name: str
    cases: int = 0
    lost_most: int = 0
    """Most frames that one case cost."""
    violations: list[str] = field(default_factory=list)

    def add(self, what: str, problems: Iterable[str]) -> None:
        self.cases += 1
        self.violations += [f"{self.name}, {what}: {problem}" for problem in problems]


# ------------------------------------------------------------------------------------------------ T4, torn writes


def torn_log(corpus: Corpus, directory: Path, step: int = 1) -> Tally:
    """The newest segment torn at every byte: recovery and delivery give exactly the whole frames, and declare nothing
    but what lies between two of them."""
    tally, newest = Tally(corpus.name), corpus.newest
    image = corpus.files[newest]
    damaged.put(directory, corpus.files)
    for at in range(0, len(image) + 1, step):
        for what, left in corpora.torn(image, at):
            damaged.put(directory, {**corpus.files, newest: left})
            tops, _ = damaged.recovered_tops(directory)
            images = {**corpus.files, newest: left}
            problems = damaged.judge(corpus, images, damaged.deliver(directory, tops), tops)
            tally.add(f"{what} at {at}", problems + _suffix(corpus, what, at, tops))
    return tally


def _suffix(corpus: Corpus, what: str, at: int, tops: dict[bytes, int]) -> list[str]:
    """Cut off at a byte, the log is the exact prefix of what was written."""
    if what != "cut":
        return []
    prefix = [p for p in corpus.placed if p.count and (p.file < corpus.newest or p.end <= at)]
    exact = {p.writer: p.first_seq + p.count - 1 for p in prefix}
    # A checkpoint that is whole says as much as the segments before it: nothing more.
    return [] if tops == exact else [f"recovered {tops}, the prefix is {exact}"]


def torn_spool(corpus: Corpus, directory: Path, step: int = 1) -> Tally:
    """Each chunk of a dead writer torn at every byte: what is whole arrives, what is not is declared exactly."""
    tally = Tally(corpus.name)
    top = corpus.tops()[WRITER]
    for number, image in corpus.files.items():
        damaged.put_chunks(directory, corpus.files)
        for at in range(0, len(image) + 1, step):
            for what, left in corpora.torn(image, at):
                tally.add(
                    f"chunk {number}, {what} at {at}", _spool(corpus, directory, {**corpus.files, number: left}, top)
                )
    return tally


def _spool(corpus: Corpus, directory: Path, images: dict[int, bytes], top: int, **how: int | bool) -> list[str]:
    damaged.put_chunks(directory, images)
    return damaged.judge_spool(corpus, images, damaged.tail_all(directory, published=top, **how), top)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- T5, damaged bytes


def damages(image: bytes, step: int, seed: int = 7) -> Iterator[tuple[str, bytes]]:
    """Every bit turned over, then swapped bytes, two bits, and sectors of zeros, ones and garbage."""
    rng = random.Random(seed)
    for bit in range(0, 8 * len(image), step):
        yield f"bit {bit}", corpora.flipped(image, bit)
    for at in range(0, len(image) - 1, max(1, step)):
        yield (
            f"bytes {at} and {at + 1} swapped",
            corpora.overwritten(image, at, image[at + 1 : at + 2] + image[at : at + 1]),
        )
    for _ in range(8 * len(image) // (4 * step)):
        one, other = rng.randrange(8 * len(image)), rng.randrange(8 * len(image))
        yield f"bits {one} and {other}", corpora.flipped(image, one, other)
    for at in range(0, len(image), corpora.SECTOR):
        for what, data in (("zeros", bytes(512)), ("ones", b"\xff" * 512), ("garbage", rng.randbytes(512))):
            yield f"sector of {what} at {at}", corpora.overwritten(image, at, data)


def flips_in_memory(corpus: Corpus, step: int = 1) -> Tally:
    """`segment.scan` over a damaged segment: exactly the untouched frames come out; damage is said if one does not."""
    tally = Tally(corpus.name)
    image = corpus.files[1]
    for what, left in damages(image, step):
        try:
            found = list(segment.scan(left))
        except UnsupportedVersion:
            tally.add(what, ["damage taken for a newer version"])
            continue
        frames = {f.lsn: (f.type, f.payload) for f in found if isinstance(f, Frame)}
        whole = {i + 1: (p.kind, p.data) for i, p in enumerate(corpus.placed) if p.is_whole(left, image)}
        lost = len(corpus.placed) - len(whole)
        problems = [] if frames == whole else [f"{len(frames)} frames came out, {len(whole)} are whole"]
        if what.startswith("bit ") and lost > 1:
            problems.append(f"{lost} frames lost by one bit")
        if bool(lost) != any(isinstance(f, Damage) and f.offset for f in found):
            problems.append("damage not said" if lost else "damage said and nothing lost")
        tally.lost_most = max(tally.lost_most, lost if what.startswith("bit ") else 0)
        tally.add(what, problems)
    return tally


def flips_recovered(directory: Path, step: int = 1) -> Tally:
    """The log of a daemon that was killed when all was synced, each bit flipped, read by the next daemon."""
    wal = directory / "wal"
    wal.mkdir(mode=0o700)
    log = LogWriter(wal, recovery.recover(wal, 1))
    log.start()
    for first in (1, 4, 7):
        log.write([_numbered(seq) for seq in range(first, min(first + 3, 8))], {})
        log.sync()
    log.close()
    image = files.path_of(wal, 1).read_bytes()
    tally = Tally("a killed daemon's log, read by the next")
    for bit in range(0, 8 * len(image), step):
        damaged.put(wal, {1: corpora.flipped(image, bit)})
        log = LogWriter(wal, recovery.recover(wal, 1))
        end = log.start()
        source = RouteReader(wal, corpora.ROUTE, lambda log=log: log.segments)  # type: ignore[misc]
        batches, _ = source.read(end, 1 << 20)
        source.close()
        log.close()
        found = {batch.first_seq: batch.data for batch in batches}
        lost = {seq for seq in range(1, 8) if seq not in found}
        wrong = [seq for seq, data in found.items() if data != _numbered(seq).data]
        problems = [f"wrong bytes in {wrong}"] if wrong else []
        tally.add(f"bit {bit}", problems + ([f"lost {sorted(lost)}"] if len(lost) > 1 else []))
        tally.lost_most = max(tally.lost_most, len(lost))
    return tally


def _numbered(seq: int) -> ingest_pb2.Batch:
    data = batch_format.join([b"record %d" % seq])
    return ingest_pb2.Batch(
        writer_id=WRITER, first_seq=seq, count=1, data=data, raw_bytes=len(data), route=corpora.ROUTE, run_id="r"
    )


def flips_delivered(corpus: Corpus, directory: Path, step: int = 1) -> Tally:
    """Each segment of a log damaged under a running daemon, then delivered: every loss is declared, exactly."""
    tally, tops = Tally(corpus.name), corpus.tops()
    for number, image in corpus.files.items():
        damaged.put(directory, corpus.files)
        for what, left in damages(image, step, number):
            damaged.put(directory, {number: left, **{n: i for n, i in corpus.files.items() if n != number}})
            problems = damaged.judge(corpus, {**corpus.files, number: left}, damaged.deliver(directory, tops), tops)
            tally.add(f"segment {number}, {what}", problems)
    return tally


def flips_of_a_spool(corpus: Corpus, directory: Path, step: int = 1) -> Tally:
    """Each chunk damaged, read for a dead writer and for a live one."""
    tally = Tally(corpus.name)
    top = corpus.tops()[WRITER]
    for number, image in corpus.files.items():
        for index, (what, left) in enumerate(damages(image, step, number)):
            images = {**corpus.files, number: left}
            is_dead = bool(index % 2)
            if what.startswith("bits "):  # two faults may cost a whole frame more, never a wrong one
                damaged.put_chunks(directory, images)
                sent = damaged.tail_all(directory, published=top, is_dead=is_dead)
                problems = damaged.judge_loosely(corpus, sent, {WRITER: top})
            else:
                problems = _spool(corpus, directory, images, top, is_dead=is_dead)
            tally.add(f"chunk {number}, {what}", problems)
    return tally


# ------------------------------------------------------------------------------------------- T5, whole files gone wrong


def misplaced_segments(corpus: Corpus, directory: Path) -> Tally:
    """Segments swapped, duplicated, renamed, deleted, cut back to an old copy: no wrong payload, each seq once, every
    loss declared."""
    tally, tops, last = Tally(f"{corpus.name}: files"), corpus.tops(), corpus.newest
    for what, images in _misplaced(corpus.files):
        damaged.put(directory, images)
        there = {n: i for n, i in images.items() if corpus.files.get(n) == i}
        sent = damaged.deliver(directory, tops)
        recovered, _ = damaged.recovered_tops(directory)
        problems = damaged.judge_loosely(corpus, sent, tops, must=there if what != "old copy" else {})
        # A copy of an older segment behind the newest must not hide what the newest holds.
        if last in there and what in ("duplicate", "old behind") and recovered != tops:
            problems.append(f"recovered {recovered} of {tops}")
        tally.add(what, problems)
    return tally


def _misplaced(files: dict[int, bytes]) -> Iterator[tuple[str, dict[int, bytes]]]:
    numbers = sorted(files)
    last = numbers[-1]
    for number in numbers:
        yield "deleted", {n: i for n, i in files.items() if n != number}
        yield "duplicate", {**files, last + 1: files[number]}
        yield "renamed", {n if n != number else last + 7: i for n, i in files.items()}
        for other in numbers:
            yield "replaced by another", {**files, number: files[other]}
            yield "swapped", {**files, number: files[other], other: files[number]}
        for cut in range(0, len(files[number]), 97):
            yield "old copy", {**files, number: files[number][:cut]}
            yield "old behind", {**files, last + 1: files[number][:cut]}


def misplaced_chunks(corpus: Corpus, other: Corpus, directory: Path) -> Tally:
    """The same with the chunks of a spool; `other` is another writer's, whose chunks take the place of this one's."""
    tally = Tally(f"{corpus.name}: files")
    top = corpus.tops()[WRITER]
    foreign = {n: i.replace(WRITER, b"F" * 16, 1) for n, i in other.files.items()}
    cases = [*_misplaced(corpus.files)]
    cases += [("of another writer", {**corpus.files, n: foreign[n]}) for n in corpus.files]
    cases += [("another writer's behind", {**corpus.files, corpus.newest + 1: i}) for i in foreign.values()]
    for what, images in cases:
        damaged.put_chunks(directory, images)
        for is_dead in (True, False):
            sent = damaged.tail_all(directory, published=top, is_dead=is_dead)
            there = {n: i for n, i in images.items() if corpus.files.get(n) == i}
            tally.add(what, damaged.judge_loosely(corpus, sent, {WRITER: top}, must=there))
    return tally

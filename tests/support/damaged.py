"""Reads damaged logs and spools through the daemon's and the courier's own code, and judges what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trackd.courier.tail import Tail
from trackd_daemon.upload.delivery import Delivery, Hole
from trackd_daemon.wal import files, recovery
from trackd_daemon.wal.reader import RouteReader
from trackd_daemon.wal.state import Position
from trackd_proto import batch, limits, segment, spool

from support.corpora import ROUTE, WRITER, Corpus, Placed

_MOST: Final = 100_000


@dataclass
class Sent:
    """What went to the next hop, by writer: payload of each seq's frame, and the seqs declared lost."""

    data: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    lost: dict[bytes, set[int]] = field(default_factory=dict)
    next_seq: dict[bytes, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, writer: bytes, first: int, count: int, payload: bytes | None) -> None:
        expected = self.next_seq.get(writer, 1)
        if first > expected or first + count <= expected:
            self.problems.append(f"seqs {first}+{count} went out where {expected} comes next")
        self.next_seq[writer] = first + count
        if count > _MOST:
            self.problems.append(f"{count} seqs at once, more than any corpus has")
            return
        for seq in range(max(first, expected), first + count):
            if payload is None:
                self.lost.setdefault(writer, set()).add(seq)
            else:
                self.data.setdefault(writer, {})[seq] = payload


def put(directory: Path, images: Mapping[int, bytes]) -> None:
    """Make `directory` a log of exactly these segments."""
    for number in set(files.numbers(directory)) - set(images):
        files.path_of(directory, number).unlink()
    for number, image in images.items():
        files.path_of(directory, number).write_bytes(image)


def deliver(directory: Path, durable: Mapping[bytes, int]) -> Sent:
    """Everything that a route sends of this log to a hub that has nothing, as upload.route.Route drives it."""
    sent, delivery = Sent(), Delivery()
    delivery.connected({})
    numbers = files.numbers(directory)
    reader = RouteReader(directory, ROUTE, lambda: numbers)
    at_end = not numbers
    end = Position(numbers[-1], files.path_of(directory, numbers[-1]).stat().st_size) if numbers else Position(0, 0)
    while not at_end:
        batches, at_end = reader.read(end, 4096)
        for found in batches:
            wanted, hole = delivery.admit(found.writer_id, found.first_seq, found.count, 1)
            _declare(sent, found.writer_id, hole)
            if wanted:
                payload = None if found.loss_reason else found.SerializeToString()
                sent.add(found.writer_id, found.first_seq, found.count, payload)
    reader.close()
    for writer, top in durable.items():
        _declare(sent, writer, delivery.missing_tail(writer, top, 1))
    return sent


def _declare(sent: Sent, writer: bytes, hole: Hole | None) -> None:
    if hole is not None:
        sent.add(writer, hole.first_seq, hole.records, None)


def judge(corpus: Corpus, images: Mapping[int, bytes], sent: Sent, tops: Mapping[bytes, int]) -> list[str]:
    """Violations: a wrong payload, something whole not delivered, something gone not declared, a false alarm."""
    problems = list(sent.problems)
    whole = corpus.whole(dict(images))
    for writer, top in tops.items():
        there, declared = expected(whole, writer)
        gone = set(range(1, top + 1)) - set(there) - declared
        given, lost = sent.data.get(writer, {}), sent.lost.get(writer, set())
        wrong = [seq for seq, payload in given.items() if there.get(seq) != payload]
        if wrong:
            problems.append(f"wrong payloads at seqs {wrong[:5]}")
        if missing := set(there) - set(given):
            problems.append(f"whole and not delivered: seqs {sorted(missing)[:5]}")
        if lost != gone | declared:
            problems.append(f"declared lost {sorted(lost)[:9]}, gone are {sorted(gone | declared)[:9]}")
    return problems


def expected(whole: list[Placed], writer: bytes) -> tuple[dict[int, bytes], set[int]]:
    """Payload by seq, and the seqs whose loss is declared, of the frames that are whole."""
    there: dict[int, bytes] = {}
    declared: set[int] = set()
    for placed in whole:
        if placed.writer != writer or not placed.count:
            continue
        if placed.kind == (segment.LOSS if placed.writer != WRITER else 1):
            declared.update(placed.seqs)
        else:
            there.update(dict.fromkeys(placed.seqs, placed.data))
    return there, declared


def judge_loosely(
    corpus: Corpus, sent: Sent, tops: Mapping[bytes, int], must: Mapping[int, bytes] | None = None
) -> list[str]:
    """For files out of place: each seq goes out once, right or as a loss; what stands whole in its place (`must`) may
    be lost only where order forbids it, so only wrong payloads, holes and repetitions are violations here."""
    problems = list(sent.problems)
    for writer, top in tops.items():
        there, _ = expected(corpus.placed, writer)
        given, lost = sent.data.get(writer, {}), sent.lost.get(writer, set())
        if wrong := [seq for seq, payload in given.items() if there.get(seq) != payload]:
            problems.append(f"wrong payloads at seqs {wrong[:5]}")
        if silent := set(range(1, top + 1)) - set(given) - lost:
            problems.append(f"neither delivered nor declared: seqs {sorted(silent)[:5]}")
        if beyond := {seq for seq in (*given, *lost) if seq > top}:
            problems.append(f"seqs that never were: {sorted(beyond)[:5]}")
        in_place, _ = expected(corpus.whole(dict(must or {})), writer)
        if missing := set(in_place) - set(given):
            problems.append(f"stands whole in its place and is lost: seqs {sorted(missing)[:5]}")
    return problems


def recovered_tops(directory: Path) -> tuple[dict[bytes, int], list[str]]:
    """Highest seq by writer as recovery sees it, and its warnings."""
    found = recovery.recover(directory, 1)
    return {w.writer_id: w.received for w in found.state.writers.values()}, found.warnings


# ------------------------------------------------------------------------------------------------------- spools


def tail_all(
    directory: Path,
    *,
    published: int,
    is_dead: bool = True,
    max_bytes: int = 4096,
    words: Mapping[int, int] | None = None,
) -> Sent:
    """Everything that a courier reads of the chunks in `directory`."""
    head = {spool.PUBLISHED: published, **(words or {})}
    tail, sent, idle = Tail(directory, WRITER, lambda index: head.get(index, 0)), Sent(), 0
    while idle < 8:
        item = tail.read(max_bytes, is_dead)
        idle = 0 if item is not None else idle + 1
        if item is None:
            continue
        if len(item.data) > limits.MAX_BATCH_BYTES:
            sent.problems.append(f"a batch of {len(item.data)} bytes: the agent takes no more than 2 MiB")
        if item.reason:
            sent.add(WRITER, item.first_seq, item.count, None)
        for index, record in enumerate(batch.split(item.data)):
            sent.add(WRITER, item.first_seq + index, 1, bytes(record))
    tail.close()
    return sent


def put_chunks(directory: Path, images: Mapping[int, bytes]) -> None:
    """Make `directory` hold exactly these chunks."""
    for path in directory.glob("*.chunk"):
        if int(path.name.split(".")[1]) not in images:
            path.unlink()
    for number, image in images.items():
        (directory / spool.chunk_name(WRITER.hex(), number)).write_bytes(image)


def judge_spool(corpus: Corpus, images: Mapping[int, bytes], sent: Sent, published: int) -> list[str]:
    """As `judge`, for one writer's chunks of which `published` seqs were written."""
    problems = list(sent.problems)
    whole = corpus.whole(dict(images))
    there = {p.first_seq: p.data for p in whole if not p.kind}
    lost = set(range(1, published + 1)) - set(there)
    given = sent.data.get(WRITER, {})
    if wrong := [seq for seq, payload in given.items() if there.get(seq) != payload]:
        problems.append(f"wrong payloads at seqs {wrong[:5]}")
    if missing := {seq for seq in there if seq <= published} - set(given):
        problems.append(f"whole and not delivered: seqs {sorted(missing)[:5]}")
    if sent.lost.get(WRITER, set()) != lost:
        problems.append(f"declared lost {sorted(sent.lost.get(WRITER, set()))[:9]}, gone are {sorted(lost)[:9]}")
    return problems

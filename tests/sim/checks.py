"""The invariants of the promise (docs/reliability.md), each by its name."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from trackd_daemon.upload.delivery import Hole
from trackd_daemon.wal import files, frames
from trackd_proto import batch as framing
from trackd_proto import records, segment, spool
from trackd_proto.v1 import ingest_pb2

from .hub import SimHub, Store
from .trainers import Writer, value_of

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World


class Violation(AssertionError):
    """An invariant does not hold."""


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise Violation(f"{name}: {what}")


def check_i2_prefix(hub: SimHub) -> None:
    """Each store holds every seq below its next one, as a record or a declared loss, and none twice."""
    for store in (hub.catalog, hub.series):
        while store.touched:
            writer_id = store.touched.pop()
            next_seq = store.next_seq.get(writer_id, 1)
            kept, lost = store.records.get(writer_id, {}), store.losses.get(writer_id, {})
            _require(len(kept) + len(lost) == next_seq - 1, "I2 prefix", f"{len(kept)}+{len(lost)} of {next_seq - 1}")
            _require(kept.keys().isdisjoint(lost), "I2 prefix", "a record is also declared lost")
            if next_seq > 1:
                top = max(max(kept, default=0), max(lost, default=0))
                _require(top == next_seq - 1, "I2 prefix", f"the last is {top}, next is {next_seq}")


def check_i4_levels(world: "Machine") -> None:
    """committed and durable are true, and no level is ahead of the one before."""
    for writer in world.writers:
        words = writer.lane._words
        received, durable, committed = words[spool.RECEIVED], words[spool.DURABLE], words[spool.COMMITTED]
        true_committed = world.hub.committed(writer.writer_id)
        if committed > true_committed:
            raise Violation(f"I7 honest commit: {committed} but {true_committed}")
        if durable > max(world.durable.get(writer.writer_id, 0), true_committed):
            raise Violation(f"I6 honest durable: {durable} but {world.durable.get(writer.writer_id, 0)}")
        if durable > received:
            raise Violation(f"I4 levels: {writer.lane.watermarks()}")


def check_i5_gc(world: "Machine", path: Path) -> None:
    """A segment goes only when synced frames in later ones say of each of its records that it is committed (and it is),
    or hold it too (what a failed sync left in doubt was written again)."""
    number = int(path.stem)
    acked: dict[bytes, int] = {}
    before: dict[bytes, int] = {}
    """Of writers that were forgotten since: silent for a day, and nothing of them was pending."""
    again: dict[bytes, set[int]] = {}
    for other, content in world.disk.safe_contents():
        if int(other.stem) < number:
            continue
        is_later = int(other.stem) > number
        for frame in segment.scan_with(lambda at, n, c=content: c[at : at + n], len(content)):  # type: ignore[misc]
            if isinstance(frame, segment.Frame):
                _note_frame(frame, *((acked, again) if is_later else (before, {})))
    for writer_id, seq in before.items():
        acked.setdefault(writer_id, seq)
    with files.SegmentReader(path) as reader:
        for found in reader.frames():
            if isinstance(found, segment.Frame) and found.type in (segment.DATA, segment.LOSS):
                _check_gone(world, number, ingest_pb2.Batch.FromString(found.payload), acked, again)


def _note_frame(frame: segment.Frame, acked: dict[bytes, int], again: dict[bytes, set[int]]) -> None:
    if frame.type == segment.ACK:
        for writer_id, seq in frames.decode_acks(frame.payload):
            acked[writer_id] = max(seq, acked.get(writer_id, 0))
    elif frame.type == segment.CKPT:
        for row in frames.decode_checkpoints(frame.payload):
            acked[row.writer_id] = max(row.acked, acked.get(row.writer_id, 0))
    elif frame.type in (segment.DATA, segment.LOSS):
        batch = ingest_pb2.Batch.FromString(frame.payload)
        again.setdefault(batch.writer_id, set()).update(range(batch.first_seq, batch.first_seq + batch.count))


def _check_gone(
    world: "Machine", number: int, batch: ingest_pb2.Batch, acked: dict[bytes, int], again: dict[bytes, set[int]]
) -> None:
    seqs = set(range(batch.first_seq, batch.first_seq + batch.count)) - again.get(batch.writer_id, set())
    if not seqs:
        return
    last, committed = max(seqs), world.hub.committed(batch.writer_id)
    _require(last <= committed, "I5 GC", f"segment {number} holds seq {last}, committed is {committed}")
    synced = acked.get(batch.writer_id, 0)
    _require(last <= synced, "I5 GC", f"segment {number} holds seq {last}, synced acks say {synced}")


def check_retained(directory: Path, segments: Iterable[int], writer_id: bytes, hole: Hole) -> None:
    """What is declared lost on the way to the hub is nowhere in the log."""
    wanted = set(range(hole.first_seq, hole.first_seq + hole.records))
    for number in segments:
        with files.SegmentReader(files.path_of(directory, number)) as reader:
            for found in reader.frames():
                if isinstance(found, segment.Frame) and found.type == segment.DATA:
                    batch = ingest_pb2.Batch.FromString(found.payload)
                    held = range(batch.first_seq, batch.first_seq + batch.count)
                    if batch.writer_id == writer_id and not wanted.isdisjoint(held):
                        raise Violation(f"I14 retained: {hole} is declared lost, segment {number} holds {held}")


def check_passed(world: "World") -> None:
    """Everything has come to rest, the log's disk may be full: what every spool can read is in the hub."""
    for writer in world.writers:
        if not writer.may_lose and not world.is_restored:
            published = writer.lane._words[spool.PUBLISHED]
            committed = world.hub.committed(writer.writer_id)
            _require(committed >= published, "I1 past a full log", f"{committed} of {published} are in the hub")


def check_end(world: "World") -> None:
    """After everything was quiet: I1, I3 and I13."""
    for writer in world.writers:
        for store in (world.hub.catalog, world.hub.series):
            _check_writer(writer, store, world)


def _check_writer(writer: Writer, store: Store, world: "World") -> None:
    kept, lost = store.records.get(writer.writer_id, {}), store.losses.get(writer.writer_id, {})
    _check_kept(kept)
    _check_declared(writer, lost, world)
    there = {framing.decode_one(kept[seq])[3]["i"] for seq in writer.promised.values() if seq in kept}
    missing = {call: seq for call, seq in writer.promised.items() if call not in there}
    if writer.may_lose:
        durable = world.promised_durable.get(writer.writer_id, 0)
        missing = {call: seq for call, seq in missing.items() if seq <= durable}
    if world.is_restored:  # what a hub lost is asked for again when something follows
        missing = {call: seq for call, seq in missing.items() if seq > world.hub.committed(writer.writer_id)}
    _require(not missing, "I1 conservation", f"calls {missing} of {writer.calls} are not in the hub")


def _check_kept(kept: dict[int, bytes]) -> None:
    calls = []
    for seq in sorted(kept):
        record = framing.decode_one(kept[seq])
        if record[0] in (records.ROW, records.ROW_ORDINAL):
            row = record[3]
            if row["v"] != value_of(row["i"]):
                raise Violation(f"I3 same bytes: seq {seq}: {row}")
            calls.append(row["i"])
    _require(all(a < b for a, b in pairwise(calls)), "I3/I4 order", f"{calls}")


def _check_declared(writer: Writer, lost: dict[int, str], world: "World") -> None:
    """What is declared lost is what found no space, no more and no less; else there is a cause for it."""
    durable = world.promised_durable.get(writer.writer_id, 0) if writer.may_lose else 1 << 62
    # What a restored hub lost of a writer that is done, its losses too, nobody holds any more.
    committed = world.hub.committed(writer.writer_id) if world.is_restored else 0
    for seq, reason in lost.items():
        is_full = reason == "full" and (seq in writer.dropped or seq in writer.unsure)
        # That the hub had it is not always known: an agent with a full disk is killed before it can note the ack.
        is_restored = seq <= committed
        _require(is_full or is_restored or seq > durable, "I13 no false alarm", f"seq {seq} lost: {reason}")
    undeclared = {seq for seq in writer.dropped if seq not in lost and seq > committed}
    if not writer.may_lose:
        _require(not undeclared, "I13 every loss declared", f"{undeclared} found no space")

"""The invariants of the promise (docs/reliability.md), each by its name."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from trackd_daemon.wal import files, frames
from trackd_proto import batch as framing
from trackd_proto import records, segment
from trackd_proto.v1 import ingest_pb2

from .hub import SimHub, Store
from .processes import Writer, value_of

if TYPE_CHECKING:
    from .world import World


class Violation(AssertionError):
    """An invariant does not hold."""


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise Violation(f"{name}: {what}")


def check_i2_prefix(hub: SimHub) -> None:
    """Each store holds every seq below its next one, as a record or a declared loss, and none twice."""
    for store in (hub.catalog, hub.series):
        for writer_id, next_seq in store.next_seq.items():
            kept, lost = store.records.get(writer_id, {}), store.losses.get(writer_id, {})
            _require(len(kept) + len(lost) == next_seq - 1, "I2 prefix", f"{len(kept)}+{len(lost)} of {next_seq - 1}")
            _require(not (kept.keys() & lost.keys()), "I2 prefix", "a record is also declared lost")
            if next_seq > 1:
                top = max(max(kept, default=0), max(lost, default=0))
                _require(top == next_seq - 1, "I2 prefix", f"the last is {top}, next is {next_seq}")


def check_i4_levels(world: "World") -> None:
    """committed and durable are true, and no level is ahead of the one before."""
    for writer in world.writers:
        marks = writer.lane.watermarks()
        true_committed = world.hub.position(writer.writer_id).committed - 1
        true_durable = max(world.durable.get(writer.writer_id, 0), true_committed)
        _require(marks.committed <= true_committed, "I7 honest commit", f"{marks} but {true_committed}")
        _require(marks.durable <= true_durable, "I6 honest durable", f"{marks} but {true_durable}")
        _require(marks.durable <= marks.received, "I4 levels", f"{marks}")


def check_i5_gc(world: "World", path: Path) -> None:
    """A segment goes only when synced frames in later ones say of each of its records that it is committed (and it is),
    or hold it too (what a failed sync left in doubt was written again)."""
    number = int(path.stem)
    acked: dict[bytes, int] = {}
    again: dict[bytes, set[int]] = {}
    for other, content in world.disk.safe_contents():
        if int(other.stem) > number:
            for frame in segment.scan_with(lambda at, n, c=content: c[at : at + n], len(content)):  # type: ignore[misc]
                if isinstance(frame, segment.Frame):
                    _note_frame(frame, acked, again)
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
    world: "World", number: int, batch: ingest_pb2.Batch, acked: dict[bytes, int], again: dict[bytes, set[int]]
) -> None:
    seqs = set(range(batch.first_seq, batch.first_seq + batch.count)) - again.get(batch.writer_id, set())
    if not seqs:
        return
    last, committed = max(seqs), world.hub.position(batch.writer_id).committed - 1
    _require(last <= committed, "I5 GC", f"segment {number} holds seq {last}, committed is {committed}")
    synced = acked.get(batch.writer_id, 0)
    _require(last <= synced, "I5 GC", f"segment {number} holds seq {last}, synced acks say {synced}")


def check_end(world: "World") -> None:
    """After everything was quiet: I1, I3, I13 and I15."""
    check_i2_prefix(world.hub)
    for writer in world.writers:
        _check_writer(writer, world.hub.catalog, world)
        _check_writer(writer, world.hub.series, world)


def _check_writer(writer: Writer, store: Store, world: "World") -> None:
    kept, lost = store.records.get(writer.writer_id, {}), store.losses.get(writer.writer_id, {})
    if not writer.may_lose:
        _require(not lost, "I13 no false alarm", f"{lost} although nothing was lost")
    calls = []
    for seq in sorted(kept):
        record = framing.decode_one(kept[seq])
        if record[0] not in (records.ROW, records.ROW_ORDINAL):
            continue
        row = record[3]
        _require(row["v"] == value_of(row["i"]), "I3 same bytes", f"seq {seq}: {row}")
        calls.append(row["i"])
    _require(all(a < b for a, b in pairwise(calls)), "I3/I4 order", f"{calls}")
    missing = sorted(writer.promised.keys() - set(calls))
    if writer.may_lose:
        durable = world.promised_durable.get(writer.writer_id, 0)
        missing = [call for call in missing if writer.promised[call] <= durable]
        _require(all(seq > durable for seq in lost), "I1p durable", f"{lost} up to {durable}")
    _require(not missing, "I1 conservation", f"calls {missing} of {writer.calls} are not in the hub")

"""Protocol mistakes, one at a time, each of which the simulator must find.

A mutant replaces one piece of source text of one function (and fails loudly when that text is gone), or one method.
"""

import __future__

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from trackd import lane as lane_module
from trackd.courier import delivery as flight_module
from trackd.courier import lanes as lanes_module
from trackd.courier import sender as sender_module
from trackd.courier import tail as tail_module
from trackd_daemon.ingest import marks as marks_module
from trackd_daemon.store import admission
from trackd_daemon.upload import delivery as delivery_module
from trackd_daemon.upload import outbox as outbox_module
from trackd_daemon.wal import backlog as backlog_module
from trackd_daemon.wal import doubt as doubt_module
from trackd_daemon.wal import files as files_module
from trackd_daemon.wal import recovery as recovery_module
from trackd_daemon.wal import state as state_module
from trackd_daemon.wal import writer as writer_module

from . import hub as hub_module


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in the source of `owner.name`."""

    name: str
    owner: Any
    function: str
    old: str
    new: str

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While the mistake is in."""
        with mock.patch.object(self.owner, self.function, self._made()):
            yield

    def _made(self) -> Any:
        kind = inspect.getattr_static(self.owner, self.function)
        original: Callable[..., Any] = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(original))
        assert source.count(self.old) == 1, f"{self.name}: {source.count(self.old)} times {self.old!r}"
        module = sys.modules[original.__module__]
        scope = dict(vars(module))
        flags = __future__.annotations.compiler_flag
        exec(compile(source.replace(self.old, self.new), f"<mutant {self.name}>", "exec", flags), scope)
        made = scope[self.function]
        return staticmethod(made) if isinstance(kind, staticmethod) else made


MUTANTS = (
    Mutant("hub knows only the catalog", hub_module.SimHub, "position",
           "self.series.next_seq.get(writer_id, 1)", "self.catalog.next_seq.get(writer_id, 1)"),
    Mutant("one watermark for two stores", admission, "pieces",
           "first >= position.series", "first >= position.catalog"),
    Mutant("a loss does not advance next_seq", hub_module.Store, "advance",
           "self.next_seq[writer_id] = next_seq",
           "self.next_seq[writer_id] = self.next_seq.get(writer_id, 1) if is_loss else next_seq"),
    Mutant("hub answers before it commits", hub_module.SimHub, "commit",
           'self.series.apply(pieces, "for_series")', "pass"),
    Mutant("hub dedupes in memory only", hub_module.SimHub, "_maybe_crash",
           'self.crash_after = ""',
           'self.crash_after = ""; self.catalog.next_seq.clear(); self.series.next_seq.clear()'),
    Mutant("spool trimmed on accepted, before the log's write", marks_module.Ledger, "accept",
           "marks.accepted = last_seq", "marks.accepted = marks.received = marks.durable = last_seq"),
    Mutant("spool trimmed on received", flight_module.Flight, "advance",
           "self.durable = max(self.durable, durable, committed)", "self.durable = self.received"),
    Mutant("durable before the sync", writer_module.LogWriter, "_append",
           "self._next_lsn += len(new)",
           "self._next_lsn += len(new); self._progress.durable.update({f.writer_id: f.last_seq for f in new})"),
    Mutant("collected on an ack that is not synced", writer_module.LogWriter, "write",
           'self.full_reason = ""', 'self.full_reason = ""; self._state.acknowledge(acks.items()); self._collect()'),
    Mutant("a failed sync is tried again on the same file", files_module.SegmentFile, "sync",
           "self.broken = True\n        raise", "self._disk.sync(self._descriptor)"),
    Mutant("a failed sync's frames are not written again", writer_module.LogWriter, "_start_anew",
           "self._append(lost)", "pass"),
    Mutant("recovery trusts the page cache", doubt_module, "find", "return chosen", "return []"),
    Mutant("recovery counts one too many", recovery_module, "_apply",
           "batch.first_seq + batch.count - 1", "batch.first_seq + batch.count"),
    Mutant("segments go when any writer is done", state_module.LogState, "needed",
           "if last_seq > writer.acked", "if last_seq > writer.acked + 8"),
    Mutant("seq bumped before the copy", lane_module.Lane, "row",
           "check = crc32(payload, crc)",
           "self._state = (memory, limit, offset, seq + 1, x, crc, kind); check = crc32(payload, crc)"),
    Mutant("published before the commit", lane_module.Lane, "row",
           "seq += 1", "seq += 1; self._words[_PUBLISHED] = seq"),
    Mutant("a live spool is read beyond what is published", tail_module.Tail, "read",
           "last = _NO_END if is_dead else self._word(spool.PUBLISHED)", "last = _NO_END"),
    Mutant("chunks freed as they are sent", lanes_module.SpoolLane, "advance",
           "if freed is not None:", "self._free(self.tail.position)\n    if freed is not None:"),
    Mutant("after a reconnect the courier goes on where it was", lanes_module.SpoolLane, "resume",
           "self.tail.rewind(position)", "pass"),
    Mutant("after a reconnect the route goes on where it was", delivery_module.Delivery, "connected",
           "self._next = dict(next_seqs)", "self._next = {**dict(next_seqs), **self._next}"),
    Mutant("writer id used again", lane_module, "new_writer_id",
           '(time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)', "bytes(16)"),
    Mutant("hub accepts gaps", admission, "plan",
           "if batch.first_seq > expected:", "if False:"),
    Mutant("a gap is not answered by going back", outbox_module.Outbox, "take",
           "self.must_rewind = True", "pass"),
    Mutant("holes are skipped in silence", delivery_module.Delivery, "admit",
           "Hole(expected, first_seq - expected) if first_seq > expected else None", "None"),
    Mutant("a checkpoint without received seqs", state_module.LogState, "checkpoint",
           "Checkpoint(w.writer_id, w.received,", "Checkpoint(w.writer_id, w.acked,"),
    Mutant("a checkpoint is compared with what is known", state_module.LogState, "load_checkpoint",
           "before.get(row.writer_id, 0)", "1 << 62 if writer.spans else 0"),
    Mutant("no END mark", lane_module.Lane, "_roll",
           "_pack_frame(chunk, offset, spool.END, 0, 0, 0, 0)", "pass"),
    Mutant("one loss interval that only grows", lane_module.Lane, "_drop",
           "if limit != _LOSING:", "if not words[spool.LOSS_FIRST]:"),
    Mutant("a loss is forgotten when there is space again", lane_module.Lane, "_roll",
           "if limit == _LOSING:", "if False:"),
    Mutant("rows without space are not counted", lane_module.Lane, "_drop",
           "words[spool.LOSS_COUNT] = seq + 2 - words[spool.LOSS_FIRST]", "pass"),
    Mutant("what was sent on an earlier connection is never freed", lanes_module.SpoolLane, "_skip_to",
           "self._pass(item)", "pass"),
    Mutant("nobody asks again", sender_module.Sender, "_ask_again", "lane.is_resumed = False", "pass"),
    Mutant("a failed append forgets its batches", backlog_module.Backlog, "give_back",
           "self._batches.extendleft(reversed(batches))", "pass"),
    Mutant("a failed append puts its batches behind", backlog_module.Backlog, "give_back",
           "self._batches.extendleft(reversed(batches))", "self._batches.extend(batches)"),
    Mutant("nothing goes past a full log", outbox_module.Outbox, "compose",
           "outgoing += self._passed_through()", "pass"),
    Mutant("a full log drops what is not committed", backlog_module.Backlog, "acknowledge",
           "> self._acks.get(b.writer_id, 0)", "> self._acks.get(b.writer_id, 0) + 3"),
)  # fmt: skip

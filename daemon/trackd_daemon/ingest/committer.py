"""Group commit into a hub's store: one thread takes all that is waiting, commits it, and takes what came meanwhile."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trackd_proto.compress import CompressionError, Decompressor
from trackd_proto.limits import MIB
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.errors import StoreError
from trackd_daemon.ingest.trimming import raw_data
from trackd_daemon.model import Batch, Outcome

if TYPE_CHECKING:
    from trackd_daemon.ports import IngestPort

GROUP_RECORDS: Final = 200_000
GROUP_BYTES: Final = 8 * MIB
REST_S: Final = 0.1
"""After a commit with less than a quarter of a group: a transaction costs as much for one row as for a hundred, and
whoever trains on this machine wants the processor. Part of the freshness budget."""
STOP_S: Final = 3.0
"""What is waiting when a hub stops can be minutes of work for its store; a stopped container is killed after 10 s."""


@dataclass(slots=True)
class _Work:
    """Batches to commit, or a question to the store."""

    batches: Sequence[ingest_pb2.Batch]
    question: Callable[[], Any] | None
    answer: "Future[Any]"


class Committer:
    """Feeds a store from one thread. Everything public may be called from any thread."""

    def __init__(self, store: "IngestPort") -> None:
        self._store = store
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._put_back: _Work | None = None
        self._decompressor = Decompressor()
        self._hurry = threading.Event()
        self._stops_at = math.inf
        self._thread = threading.Thread(target=self._run, name="trackd-commit", daemon=True)
        self.problem = ""
        """Why the last commit failed, "" if it did not."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, batches: Sequence[ingest_pb2.Batch]) -> "Future[dict[bytes, Outcome]]":
        """Commit these batches, behind all submitted before. The outcome of each writer in them, or StoreError."""
        return self._put(batches, None)

    def resume(self, writer_ids: Sequence[bytes]) -> "Future[dict[bytes, int]]":
        """The next seq that the store expects of each writer, behind all submitted before."""
        return self._put((), lambda: self._store.resume(writer_ids))

    def touch(self, writer_ids: Sequence[bytes]) -> None:
        """These writers' processes are alive now."""
        now_us = time.time_ns() // 1000
        self._put((), lambda: self._store.touch(writer_ids, now_us))

    def stop(self, limit_s: float = STOP_S) -> None:
        """Commit what was submitted, then end the thread. After `limit_s` seconds no further commit is begun: the rest
        is refused, its senders have it and send it again. Safe twice and without start()."""
        self._stops_at = min(self._stops_at, time.monotonic() + limit_s)
        self._queue.put(None)
        self._hurry.set()
        if self._thread.is_alive():
            self._thread.join()

    def _put(self, batches: Sequence[ingest_pb2.Batch], question: Callable[[], Any] | None) -> "Future[Any]":
        work = _Work(batches, question, Future())
        self._queue.put(work)
        if question is not None:
            self._hurry.set()
        return work.answer

    def _run(self) -> None:
        while (first := self._put_back or self._queue.get()) is not None:
            self._put_back = None
            self._hurry.clear()
            if time.monotonic() >= self._stops_at:
                _refuse(first)
                continue
            if first.question is not None:
                _answer(first)
                continue
            if group := self._group(first):
                self._commit(group)
                if 4 * sum(_extent(work)[1] for work in group) < GROUP_BYTES:
                    self._hurry.wait(REST_S)

    def _group(self, first: _Work) -> list[_Work]:
        """`first` and what is waiting behind it, as far as one commit should go."""
        group = [first] if first.answer.set_running_or_notify_cancel() else []
        records, size = _extent(first)
        while records < GROUP_RECORDS and size < GROUP_BYTES:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._queue.put(None)
                break
            if work.question is not None:
                self._put_back = work
                break
            if not work.answer.set_running_or_notify_cancel():
                continue  # whoever sent it has gone; it comes again
            group.append(work)
            more = _extent(work)
            records, size = records + more[0], size + more[1]
        return group

    def _commit(self, group: list[_Work]) -> None:
        batches = [self._opened(batch) for work in group for batch in work.batches]
        try:
            outcomes = {outcome.writer_id: outcome for outcome in self._store.ingest(batches)}
            self.problem = ""
        except StoreError as error:
            self.problem = str(error)
            for work in group:
                work.answer.set_exception(error)
            return
        except Exception as error:
            # Whatever it was, the sender must hear of it and try again: the data stays where it is.
            self.problem = f"{type(error).__name__}: {error}"
            for work in group:
                work.answer.set_exception(StoreError(self.problem))
            return
        for work in group:
            work.answer.set_result(
                {b.writer_id: outcomes[b.writer_id] for b in work.batches if b.writer_id in outcomes}
            )

    def _opened(self, batch: ingest_pb2.Batch) -> Batch:
        """The batch uncompressed; one that cannot be is declared lost, so that it does not hold up its writer."""
        data, loss_reason = b"", batch.loss_reason
        if not loss_reason:
            try:
                data = raw_data(batch, self._decompressor)
            except CompressionError:
                loss_reason = "rejected"
        return Batch(batch.writer_id, batch.project, batch.run_id, batch.first_seq, batch.count, data, loss_reason)


def _answer(work: _Work) -> None:
    assert work.question is not None
    if not work.answer.set_running_or_notify_cancel():
        return
    try:
        work.answer.set_result(work.question())
    except StoreError as error:
        work.answer.set_exception(error)
    except Exception as error:
        work.answer.set_exception(StoreError(f"{type(error).__name__}: {error}"))


def _refuse(work: _Work) -> None:
    if work.answer.set_running_or_notify_cancel():
        work.answer.set_exception(StoreError("the hub is being stopped"))


def _extent(work: _Work) -> tuple[int, int]:
    """Records and bytes of uncompressed data."""
    return sum(b.count for b in work.batches), sum(max(b.raw_bytes, len(b.data)) for b in work.batches)

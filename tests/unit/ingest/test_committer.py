"""Group commit: what waits goes together, order is kept, and a failure is told to whoever sent it."""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from support import serving
from trackd_daemon.errors import StoreError, StoreFullError
from trackd_daemon.ingest.committer import Committer
from trackd_daemon.model import Batch, Outcome
from trackd_proto.compress import Compressor
from trackd_proto.v1 import ingest_pb2

W, V = b"w" * 16, b"v" * 16
WAIT_S = 20


class Store:
    """Takes everything in order; holds each commit until it is let through."""

    def __init__(self) -> None:
        self.commits: list[list[Batch]] = []
        self.began = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def ingest(self, batches: Sequence[Batch]) -> list[Outcome]:
        self.began.release()
        assert self.gate.acquire(timeout=WAIT_S)
        if self.error is not None:
            raise self.error
        self.commits.append(list(batches))
        return [
            Outcome(w, max(b.next_seq for b in batches if b.writer_id == w)) for w in {b.writer_id for b in batches}
        ]

    def resume(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        return {w: 1 + sum(b.count for c in self.commits for b in c if b.writer_id == w) for w in writer_ids}

    def touch(self, writer_ids: Sequence[bytes], now_us: int) -> None:
        raise StoreError("nobody waits for this")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def committer(store: Store) -> Any:
    running = Committer(store)  # type: ignore[arg-type]
    running.start()
    yield running
    store.gate.release(1000)
    running.stop()


def batch(writer: bytes, first: int, count: int = 10, **fields: Any) -> ingest_pb2.Batch:
    return ingest_pb2.Batch(writer_id=writer, first_seq=first, count=count, **({"data": b"x" * count} | fields))


def test_what_comes_during_a_commit_is_committed_together(store: Store, committer: Committer) -> None:
    futures = [committer.submit([batch(W, 1)])]
    assert store.began.acquire(timeout=WAIT_S)
    futures += [committer.submit([batch(W, 11)]), committer.submit([batch(V, 1), batch(W, 21)])]
    question = committer.resume([W])
    store.gate.release(2)
    assert [f.result(WAIT_S)[W].next_seq for f in futures] == [11, 31, 31]
    assert question.result(WAIT_S) == {W: 31}, "a question is answered behind what came before it"
    assert [[(b.writer_id, b.first_seq) for b in c] for c in store.commits] == [[(W, 1)], [(W, 11), (V, 1), (W, 21)]]
    assert set(futures[1].result()) == {W}, "told about its own writers only"


@pytest.mark.parametrize("error", [StoreFullError("full"), ZeroDivisionError("a bug")])
def test_a_failure_reaches_the_sender_and_the_next_commit_works(
    store: Store, committer: Committer, error: Exception
) -> None:
    store.error = error
    store.gate.release()
    failed: Future[Any] = committer.submit([batch(W, 1)])
    with pytest.raises(StoreError, match=str(error)):
        failed.result(WAIT_S)
    assert str(error) in committer.problem
    store.error = None
    store.gate.release()
    assert committer.submit([batch(W, 1)]).result(WAIT_S)[W].next_seq == 11
    assert committer.problem == ""


def test_work_that_was_given_up_is_not_committed(store: Store, committer: Committer) -> None:
    first = committer.submit([batch(W, 1)])
    assert store.began.acquire(timeout=WAIT_S)
    assert committer.submit([batch(W, 11)]).cancel()
    last = committer.submit([batch(V, 1)])
    store.gate.release(2)
    assert (first.result(WAIT_S)[W].next_seq, last.result(WAIT_S)[V].next_seq) == (11, 11)
    assert {b.first_seq for c in store.commits for b in c if b.writer_id == W} == {1}


def test_batches_are_opened_and_one_that_cannot_be_is_declared_lost(store: Store, committer: Committer) -> None:
    packed = Compressor().compress(b"y" * 500)
    good = batch(W, 1, codec=ingest_pb2.CODEC_ZSTD, raw_bytes=500, data=packed)
    bad = batch(V, 1, codec=ingest_pb2.CODEC_ZSTD, raw_bytes=500, data=packed[:-3])
    store.gate.release()
    committer.submit([good, bad]).result(WAIT_S)
    (opened, lost) = store.commits[0]
    assert (opened.data, opened.loss_reason) == (b"y" * 500, "")
    assert (lost.data, lost.loss_reason, lost.count) == (b"", "rejected", 10)


def test_stop_commits_what_was_submitted(store: Store, committer: Committer) -> None:
    committer.touch([W])
    future = committer.submit([batch(W, 1)])
    store.gate.release(10)
    committer.stop()
    assert future.done()
    committer.stop()


def test_a_long_queue_does_not_hold_up_the_stop(store: Store, committer: Committer) -> None:
    first = committer.submit([batch(W, 1)])
    assert store.began.acquire(timeout=WAIT_S)
    rest = [committer.submit([batch(W, seq)]) for seq in range(11, 1011, 10)]
    question = committer.resume([W])
    stopping = threading.Thread(target=committer.stop, args=(0,))
    stopping.start()
    serving.wait_for(lambda: committer._stops_at < math.inf, "it is told to stop")
    store.gate.release()  # for one commit, and no more
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    assert first.result(0)[W].next_seq == 11
    for future in [*rest, question]:
        with pytest.raises(StoreError, match="being stopped"):
            future.result(0)
    assert len(store.commits) == 1

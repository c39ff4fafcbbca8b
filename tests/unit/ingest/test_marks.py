"""What an agent makes of the next batch of a writer."""

import pytest
from trackd_daemon.ingest.marks import FORGET_S, InvalidBatchError, Ledger, Verdict, check

V, W = b"v" * 16, b"w" * 16
OWNER = ("embedded", "p", "r")


def test_verdicts() -> None:
    ledger = Ledger()
    assert ledger.judge(W, 1, 10) == (Verdict.TAKE, 1)
    ledger.accept(W, 10, OWNER)
    assert ledger.judge(W, 1, 10) == (Verdict.DUPLICATE, 11)
    assert ledger.judge(W, 5, 10) == (Verdict.TRIM, 11)
    assert ledger.judge(W, 11, 1) == (Verdict.TAKE, 11)
    assert ledger.judge(W, 12, 1) == (Verdict.GAP, 11)


def test_judging_takes_nothing() -> None:
    ledger = Ledger()
    ledger.judge(W, 1, 10)
    assert ledger.judge(W, 1, 10) == (Verdict.TAKE, 1)


def test_marks_only_move_forward() -> None:
    ledger = Ledger()
    assert ledger.advance({W: 5}, {W: 5}, {}) == {W}
    assert ledger.advance({W: 4}, {W: 3}, {W: 0}) == set()
    assert ledger.advance({}, {}, {W: 2}) == {W}
    marks = ledger.marks(W)
    assert (marks.received, marks.durable, marks.committed) == (5, 5, 2)


def test_what_the_hub_has_is_not_taken_again() -> None:
    ledger = Ledger()
    ledger.advance({}, {}, {W: 100})
    assert ledger.judge(W, 1, 100) == (Verdict.DUPLICATE, 101)


def test_a_restart_goes_on_behind_what_was_found() -> None:
    ledger = Ledger()
    ledger.restore(W, 50, 20, OWNER)
    assert ledger.judge(W, 51, 1) == (Verdict.TAKE, 51)
    assert (ledger.uncommitted(), ledger.uncommitted([W]), ledger.uncommitted([b"x" * 16])) == (30, 30, 30)


@pytest.mark.parametrize(
    ("writer", "first", "count", "size", "loss", "said"),
    [
        (b"short", 1, 1, 10, "", "16 bytes"),
        (W, 0, 1, 10, "", "no such seqs"),
        (W, 1, 0, 10, "", "no such seqs"),
        (W, 2**63, 1, 10, "", "no such seqs"),
        (W, 2**62, 2**62, 2**62, "", "no such seqs"),
        (W, 1, 1, 3 << 20, "", "over the limit"),
        (W, 1, 10, 9, "", "do not fit"),
        (W, 1, 1, 10, "full", "bad declaration"),
        (W, 1, 1, 0, "because", "bad declaration"),
    ],
)
def test_what_no_client_sends_is_refused(
    writer: bytes, first: int, count: int, size: int, loss: str, said: str
) -> None:
    with pytest.raises(InvalidBatchError, match=said):
        check(writer, first, count, size, loss)


def test_a_loss_without_data_is_fine() -> None:
    check(W, 1, 10**9, 0, "full")


def _silent_ledger() -> Ledger:
    ledger = Ledger()
    ledger.accept(W, 10, OWNER)
    ledger.advance({}, {}, {W: 10})
    return ledger


def test_a_writer_that_is_committed_and_silent_for_a_day_is_forgotten() -> None:
    ledger = _silent_ledger()
    assert ledger.forget_silent(1000.0, lambda *_: False) == set()
    assert ledger.forget_silent(1000.0 + FORGET_S - 1, lambda *_: False) == set()
    assert ledger.forget_silent(1000.0 + FORGET_S, lambda *_: False) == {"embedded"}
    assert ledger.writers == {}


def test_one_that_was_only_asked_for_is_forgotten_too() -> None:
    ledger = Ledger()
    ledger.marks(W)
    assert ledger.forget_silent(0.0, lambda *_: False) == set()
    assert ledger.forget_silent(FORGET_S, lambda *_: False) == {""}


def test_a_new_record_begins_the_day_anew() -> None:
    ledger = _silent_ledger()
    ledger.forget_silent(0.0, lambda *_: False)
    ledger.accept(W, 11, OWNER)
    ledger.advance({}, {}, {W: 11})
    assert ledger.forget_silent(FORGET_S, lambda *_: False) == set()
    assert ledger.forget_silent(2 * FORGET_S, lambda *_: False) == {"embedded"}


def test_what_is_not_committed_or_is_needed_is_never_forgotten() -> None:
    ledger = _silent_ledger()
    ledger.accept(V, 1, OWNER)
    for day in range(5):
        assert ledger.forget_silent(day * FORGET_S, lambda w, route: (w, route) == (W, "embedded")) == set()
    assert ledger.writers.keys() == {V, W}
    ledger.forget_silent(6 * FORGET_S, lambda *_: False)
    assert ledger.forget_silent(7 * FORGET_S, lambda *_: False) == {"embedded"}
    assert ledger.writers.keys() == {V}

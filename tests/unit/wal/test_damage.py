"""T4 and T5 for the write-ahead log: whatever tears or damages its files, what arrives is right, and what is missing
is declared. The long form, every byte and every bit, is scripts/torture-bytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import byte_cases, corpora, damaged
from support.corpora import Corpus
from trackd_daemon.wal import files, recovery
from trackd_proto import segment

CORPORA = corpora.wals()
STEP = 29


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda c: c.name)
def test_a_torn_write_leaves_exactly_what_was_whole(corpus: Corpus, tmp_path: Path) -> None:
    tally = byte_cases.torn_log(corpus, tmp_path, STEP)
    assert tally.cases > 5 * len(corpus.files[corpus.newest]) // (STEP + 1)
    assert tally.violations == []


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda c: c.name)
def test_every_loss_by_damage_is_declared_exactly(corpus: Corpus, tmp_path: Path) -> None:
    tally = byte_cases.flips_delivered(corpus, tmp_path, 211)
    assert tally.cases > 15
    assert tally.violations == []


def test_one_flipped_bit_costs_at_most_one_frame() -> None:
    corpus = corpora.wal("64 KiB", batches=60, record_bytes=430)
    tally = byte_cases.flips_in_memory(corpus, 4001)
    assert tally.cases > 300
    assert tally.violations == []
    assert tally.lost_most == 1


def test_segments_out_of_place_are_never_taken_for_others(tmp_path: Path) -> None:
    tally = byte_cases.misplaced_segments(CORPORA[-1], tmp_path)
    assert tally.cases > 50
    assert tally.violations == []


def test_a_copy_of_an_old_segment_does_not_hide_the_newest(tmp_path: Path) -> None:
    corpus = CORPORA[-1]
    damaged.put(tmp_path, {**corpus.files, 9: corpus.files[1]})
    found = recovery.recover(tmp_path, 1)
    assert {w.writer_id: w.received for w in found.state.writers.values()} == corpus.tops()
    assert found.next_segment == 10
    assert 9 not in found.state.segments, "it would be removed as one that nobody needs"
    (warning,) = found.warnings
    assert "000000000009.wal is segment 1 of the log" in warning
    assert "move it to 000000000001.wal" in warning


@pytest.mark.parametrize("payload", [b"\x91\x92\xa1\xff\x01", b"\x91" * 5000 + b"\xc0", b"", b"\xc1", b"\x80"])
@pytest.mark.parametrize("kind", [segment.ACK, segment.CKPT, segment.DATA, segment.LOSS, segment.SEAL, 99])
def test_a_whole_frame_that_makes_no_sense_stops_nobody(payload: bytes, kind: int, tmp_path: Path) -> None:
    corpus = CORPORA[1]
    salt = segment.salt_of(corpora.UUID, 1)
    damaged.put(tmp_path, {1: corpus.files[1] + segment.encode_frame(kind, 1000, payload, salt)})
    tops, _ = damaged.recovered_tops(tmp_path)
    assert {w: top for w, top in tops.items() if top} == corpus.tops()
    assert damaged.judge(corpus, corpus.files, damaged.deliver(tmp_path, tops), corpus.tops()) == []


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    """The oracle is not blind: undamaged files pass, and each kind of violation is called one."""
    corpus, tops = CORPORA[1], CORPORA[1].tops()
    damaged.put(tmp_path, corpus.files)
    sent = damaged.deliver(tmp_path, tops)
    assert damaged.judge(corpus, corpus.files, sent, tops) == []
    (writer,) = tops
    payload = sent.data[writer].pop(2)
    assert "whole and not delivered" in damaged.judge(corpus, corpus.files, sent, tops)[0]
    sent.data[writer][2] = payload + b"x"
    assert "wrong payloads" in damaged.judge(corpus, corpus.files, sent, tops)[0]
    sent.data[writer][2] = payload
    sent.lost[writer] = {3}
    assert "declared lost" in damaged.judge(corpus, corpus.files, sent, tops)[0]
    assert files.numbers(tmp_path) == [1]

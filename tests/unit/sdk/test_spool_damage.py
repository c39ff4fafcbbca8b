"""T4 and T5 for the spool: what a courier reads of torn, damaged and misplaced chunks. Long form:
scripts/torture-bytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import byte_cases, corpora, damaged
from support.corpora import WRITER, Corpus
from trackd.courier.lanes import SpoolLane
from trackd.courier.tail import Tail
from trackd_proto import checksum, limits, spool

from .spooling import make_lane

CORPORA = corpora.spools()


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda c: c.name)
def test_a_torn_chunk_gives_what_is_whole_and_declares_the_rest(corpus: Corpus, tmp_path: Path) -> None:
    tally = byte_cases.torn_spool(corpus, tmp_path, 29)
    assert tally.cases > 15
    assert tally.violations == []


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda c: c.name)
def test_damage_never_becomes_a_wrong_record(corpus: Corpus, tmp_path: Path) -> None:
    tally = byte_cases.flips_of_a_spool(corpus, tmp_path, 101)
    assert tally.cases > 8
    assert tally.violations == []


def test_chunks_out_of_place_are_never_taken_for_others(tmp_path: Path) -> None:
    other = corpora.chunks("another writer", records=4, files=3)
    tally = byte_cases.misplaced_chunks(CORPORA[-1], other, tmp_path)
    assert tally.cases > 80
    assert tally.violations == []


def test_a_flipped_flag_makes_no_record_of_a_loss_and_no_loss_of_a_record(tmp_path: Path) -> None:
    corpus = CORPORA[2]
    top = corpus.tops()[WRITER]
    for placed in corpus.placed:
        images = {0: corpora.flipped(corpus.files[0], 8 * (placed.start + 12))}
        damaged.put_chunks(tmp_path, images)
        sent = damaged.tail_all(tmp_path, published=top)
        assert damaged.judge_spool(corpus, images, sent, top) == [], placed.first_seq


def _chunk(number: int, records: list[bytes], seq: int, crc: int) -> tuple[bytes, int]:
    image = spool.encode_chunk_header(WRITER, number, 1 << 20)
    for record in records:
        check = checksum.crc32(record, crc)
        image += spool.FRAME.pack(len(record), check, crc, 0, seq) + record + bytes(-len(record) % 8)
        seq, crc = seq + 1, check
    return image, crc


@pytest.mark.parametrize("is_dead", [True, False])
def test_a_damaged_end_mark_does_not_make_a_batch_that_no_agent_takes(tmp_path: Path, is_dead: bool) -> None:
    first, crc = _chunk(0, [b"one"], 1, 0)
    second, _ = _chunk(1, [bytes([i]) * 500_000 for i in range(9)], 2, crc)
    damaged.put_chunks(tmp_path, {0: first + b"\xfe" * 24, 1: second})
    sent = damaged.tail_all(tmp_path, published=10, is_dead=is_dead, max_bytes=512 * limits.KIB)
    assert sent.problems == []
    assert sorted(sent.data[WRITER]) == list(range(1, 11))


def test_behind_a_damaged_end_mark_a_live_spool_is_read_only_up_to_the_published_seq(tmp_path: Path) -> None:
    first, crc = _chunk(0, [b"one"], 1, 0)
    second, _ = _chunk(1, [b"two", b"three", b"not published"], 2, crc)
    damaged.put_chunks(tmp_path, {0: first + b"\xfe" * 24, 1: second})
    assert sorted(damaged.tail_all(tmp_path, published=3, is_dead=False).data[WRITER]) == [1, 2, 3]


def test_a_sector_of_ones_is_no_end_mark(tmp_path: Path) -> None:
    image, _ = _chunk(0, [b"%3d" % i for i in range(60)], 1, 0)
    damaged.put_chunks(tmp_path, {0: corpora.overwritten(image, 512, b"\xff" * 512)})
    sent = damaged.tail_all(tmp_path, published=60)
    assert len(sent.lost[WRITER]) <= 512 // 32 + 2
    assert 60 in sent.data[WRITER]


@pytest.mark.parametrize("bit", [0, 5, 40, 63])
def test_a_new_courier_does_not_believe_a_damaged_first_frame(tmp_path: Path, bit: int) -> None:
    """The seq in the oldest chunk's first frame says where the spool begins; unproven, it could lose what follows."""
    image, _ = _chunk(3, [b"%3d" % i for i in range(20)], 101, 77)
    at = spool.CHUNK_HEADER.size
    damaged.put_chunks(tmp_path, {3: corpora.flipped(image, 8 * (at + 16) + bit)})
    tail = Tail(tmp_path, WRITER, lambda index: 120 if index == spool.PUBLISHED else 0)
    tail.seek_start()
    assert tail.position.next_seq in (101, 102)
    item = tail.read(1 << 20, True)
    assert item is not None
    assert (item.first_seq, item.next_seq, item.reason) == (102, 121, "")
    tail.close()


def test_a_chunk_that_is_only_prepared_is_no_beginning(tmp_path: Path) -> None:
    damaged.put_chunks(tmp_path, {5: spool.encode_chunk_header(WRITER, 5, 1 << 20) + bytes(4096)})
    tail = Tail(tmp_path, WRITER, lambda index: 9 if index == spool.PUBLISHED else 0)
    tail.seek_start()
    assert tail.position.next_seq == 10
    tail.close()


@pytest.mark.parametrize(
    "blob", [b"\xa1\xff", b"\x81\xa4mode\xa1\xff", b"\x81\xa3zzz" + b"\x91" * 4000 + b"\xc0", b"", b"\xc1"]
)
def test_an_area_of_a_head_that_makes_no_sense_is_said_so(blob: bytes) -> None:
    head = bytearray(spool.HEAD_BYTES)
    head[spool.TARGET_OFFSET : spool.TARGET_OFFSET + 4] = len(blob).to_bytes(4, "little")
    head[spool.TARGET_OFFSET + 4 : spool.TARGET_OFFSET + 4 + len(blob)] = blob
    with pytest.raises(spool.SpoolError):
        spool.get_target(bytes(head))


def test_the_corpora_are_what_a_lane_writes(tmp_path: Path) -> None:
    """The tests' own encoder and the trainer's agree (losses: test_lane.py reads back what a full lane declares)."""
    lane = make_lane(tmp_path)
    for i in range(20):
        lane.row({"a": i})
    image = (tmp_path / spool.chunk_name(lane.writer_id.hex(), 0)).read_bytes()
    at, records = spool.CHUNK_HEADER.size, []
    for _ in range(21):
        length = spool.FRAME.unpack_from(image, at)[0]
        records.append(image[at + spool.FRAME_BYTES : at + spool.FRAME_BYTES + length])
        at = (at + spool.FRAME_BYTES + length + 7) & ~7
    same, _ = _chunk(0, records, 1, 0)
    assert image[spool.CHUNK_HEADER.size : at] == same[spool.CHUNK_HEADER.size :]


def test_more_losses_than_one_declaration_can_speak_of(tmp_path: Path) -> None:
    damaged.put_chunks(tmp_path, {0: CORPORA[0].files[0]})
    words = {spool.PUBLISHED: 1 << 40}
    tail = Tail(tmp_path, WRITER, lambda index: words.get(index, 0))
    items = [tail.read(4096, True) for _ in range(4)]
    assert [item.count for item in items if item is not None] == [1, *[(1 << 32) - 1] * 3]
    tail.close()


@pytest.mark.parametrize("word", [spool.PID, spool.START_TICKS, spool.PID_NAMESPACE, spool.ALIVE_OFFSET])
def test_an_impossible_number_in_a_head_stops_no_courier(tmp_path: Path, word: int) -> None:
    lane = make_lane(tmp_path)
    lane.row({"a": 1})
    lane._words[word] = (1 << 64) - 1
    lane._words[spool.START_TICKS] &= -(word == spool.START_TICKS) & ((1 << 64) - 1)
    view = SpoolLane(tmp_path / f"{lane.writer_id.hex()}.head")
    item = view.next_item()
    assert item is not None
    assert item.next_seq == 3
    view.close()


def test_a_flipped_seq_behind_damage_is_not_believed(tmp_path: Path) -> None:
    """`seq` is not in the crc: the frame behind, in the next chunk where need be, says what it must be."""
    corpus = CORPORA[-1]
    top = corpus.tops()[WRITER]
    first, second, *_, last = [p for p in corpus.placed if p.file == 0]
    for damaged_frame, flipped_frame in ((first, second), (second, last)):
        for bit in range(4):
            image = corpora.flipped(corpus.files[0], 8 * damaged_frame.start + 33, 8 * (flipped_frame.start + 16) + bit)
            damaged.put_chunks(tmp_path, {**corpus.files, 0: image})
            sent = damaged.tail_all(tmp_path, published=top)
            assert damaged.judge_loosely(corpus, sent, {WRITER: top}) == []

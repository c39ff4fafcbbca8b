"""The segment format: nothing wrong is ever read, one damage costs one frame, and the bytes stay what they are."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trackd_proto import segment
from trackd_proto.segment import Damage, Frame, HeaderDamaged, UnsupportedVersion

GOLDEN = Path(__file__).parents[2] / "golden" / "segment-v1.wal"
UUID = bytes(range(16))


def build(payloads: list[bytes], number: int = 7) -> bytes:
    """A segment of DATA frames with lsn 100, 101, ..."""
    salt = segment.salt_of(UUID, number)
    frames = [segment.encode_frame(segment.DATA, 100 + i, payload, salt) for i, payload in enumerate(payloads)]
    return segment.encode_header(UUID, number, 100, 1_700_000_000_000_000_000) + b"".join(frames)


SMALL = build([b"", b"a", b"seven!!", b"eight!!!", b"nine nine", bytes(40)])
EXPECTED = {100 + i: p for i, p in enumerate([b"", b"a", b"seven!!", b"eight!!!", b"nine nine", bytes(40)])}


def good(data: bytes) -> dict[int, bytes]:
    return {found.lsn: found.payload for found in segment.scan(data) if isinstance(found, Frame)}


def test_frames_come_back_in_order_and_aligned() -> None:
    found = list(segment.scan(SMALL))
    assert [f.lsn for f in found] == list(EXPECTED)
    assert all(isinstance(f, Frame) and f.offset % 8 == 0 and f.type == segment.DATA for f in found)
    assert good(SMALL) == EXPECTED


def test_every_truncation_gives_the_exact_prefix() -> None:
    ends = [f.end for f in segment.scan(SMALL)]
    for size in range(len(SMALL)):
        whole = sum(end <= size for end in ends)
        # The padding behind the last payload carries nothing: a frame without it is whole.
        found = good(SMALL[:size])
        assert list(found.items())[:whole] == list(EXPECTED.items())[:whole], size
        assert len(found) - whole in (0, 1), size
        assert all(EXPECTED[lsn] == payload for lsn, payload in found.items()), size


def test_every_bit_flip_costs_at_most_one_frame_and_is_reported() -> None:
    for bit in range(len(SMALL) * 8):
        damaged = bytearray(SMALL)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = list(segment.scan(bytes(damaged)))
        except UnsupportedVersion:
            pytest.fail(f"bit {bit}: damage taken for a newer version")
        frames = {f.lsn: f.payload for f in found if isinstance(f, Frame)}
        assert all(EXPECTED.get(lsn) == payload for lsn, payload in frames.items()), bit
        assert len(frames) >= len(EXPECTED) - 1, bit
        if len(frames) < len(EXPECTED):
            assert any(isinstance(f, Damage) for f in found), bit


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 10_000))
def test_garbage_never_passes_for_a_frame(garbage: bytes, where: int) -> None:
    at = where % len(SMALL)
    damaged = SMALL[:at] + garbage + SMALL[at + len(garbage) :]
    assert all(EXPECTED.get(lsn) == payload for lsn, payload in good(damaged).items())


def test_zeros_at_the_end_are_unused_space() -> None:
    assert list(segment.scan(SMALL + bytes(5000))) == list(segment.scan(SMALL))


def test_what_was_appended_behind_a_torn_frame_is_found() -> None:
    torn = SMALL[: len(SMALL) - 24]
    salt = segment.salt_of(UUID, 7)
    found = list(segment.scan(torn + segment.encode_frame(segment.DATA, 200, b"later", salt)))
    assert [type(f) for f in found[-2:]] == [Damage, Frame]
    assert found[-1].lsn == 200


def test_frames_of_another_segment_are_not_taken() -> None:
    stale = build([b"stale"], number=8)[segment.HEADER_BYTES :]
    found = list(segment.scan(SMALL + stale))
    assert good(SMALL + stale) == EXPECTED
    assert isinstance(found[-1], Damage)


def test_a_payload_that_holds_frames_is_only_a_payload() -> None:
    inner = SMALL[segment.HEADER_BYTES :]
    assert good(build([inner, b"next"])) == {100: inner, 101: b"next"}


def test_a_damaged_segment_header_costs_no_frame() -> None:
    damaged = bytes(segment.HEADER_BYTES) + SMALL[segment.HEADER_BYTES :]
    assert good(damaged) == EXPECTED
    with pytest.raises(HeaderDamaged):
        segment.decode_header(damaged)


def test_a_newer_version_is_not_damage() -> None:
    newer = bytearray(SMALL[: segment.HEADER_BYTES])
    struct.pack_into("<HH", newer, 8, 9, 9)
    newer[20:24] = bytes(4)
    import zlib

    newer[20:24] = struct.pack("<I", zlib.crc32(bytes(newer)))
    with pytest.raises(UnsupportedVersion, match=r"format 9.*up to format 1"):
        list(segment.scan(bytes(newer) + SMALL[segment.HEADER_BYTES :]))


def test_an_older_reader_may_read_what_a_newer_writer_says_it_can() -> None:
    newer = bytearray(SMALL[: segment.HEADER_BYTES])
    struct.pack_into("<H", newer, 8, 9)  # version 9, min_reader 1
    newer[20:24] = bytes(4)
    import zlib

    newer[20:24] = struct.pack("<I", zlib.crc32(bytes(newer)))
    assert good(bytes(newer) + SMALL[segment.HEADER_BYTES :]) == EXPECTED


def test_scanning_can_begin_at_any_frame() -> None:
    third = list(segment.scan(SMALL))[2]
    read = lambda offset, size: SMALL[offset : offset + size]  # noqa: E731
    salt = segment.decode_header(SMALL).salt
    found = list(segment.scan_with(read, len(SMALL), start=third.offset, salt=salt))
    assert [f.lsn for f in found] == [102, 103, 104, 105]


def test_too_large_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        segment.encode_frame(segment.DATA, 1, bytes(segment.MAX_PAYLOAD_BYTES + 1), 0)


def refusing(data: bytes, start: int, end: int) -> segment.Read:
    """A disk that reads nothing where [start, end) is a part of what is asked for."""
    return lambda at, size: b"" if at < end and at + size > start else data[at : at + size]


def stopping(data: bytes, start: int, end: int) -> segment.Read:
    """A disk that reads up to [start, end), as a file system with a page cache does."""
    return lambda at, size: data[at : at + size] if at >= end else data[at : min(at + size, start)]


@pytest.mark.parametrize("disk", [refusing, stopping])
@pytest.mark.parametrize(("most", "frames"), [(100, 600), (3000, 30), (200_000, 30)])
def test_an_unreadable_block_costs_the_frames_that_touch_it(
    disk: Callable[..., segment.Read], most: int, frames: int
) -> None:
    rng = random.Random(most)
    data = build([rng.randbytes(rng.randint(1, most)) for _ in range(frames)])
    whole = [found for found in segment.scan(data) if isinstance(found, Frame)]
    for start in range(4096, len(data), 4096 * max(1, len(data) // 4096 // 12)):
        found = list(segment.scan_with(disk(data, start, start + 4096), len(data)))
        untouched = [f for f in whole if f.offset >= start + 4096 or f.offset + 32 + len(f.payload) <= start]
        assert [f for f in found if isinstance(f, Frame)] == untouched, start
        (damage,) = (f for f in found if isinstance(f, Damage))
        assert damage.offset < start + 8
        assert damage.end >= min(start + 4096, len(data))


@pytest.mark.parametrize("disk", [refusing, stopping])
def test_an_unreadable_first_block_costs_what_is_in_it(disk: Callable[..., segment.Read]) -> None:
    data = build([bytes([i]) * 500 for i in range(40)])
    found = list(segment.scan_with(disk(data, 0, 4096), len(data)))
    untouched = [f for f in segment.scan(data) if f.offset >= 4096]
    assert [f for f in found if isinstance(f, Frame)] == untouched
    assert [(f.offset, f.end) for f in found if isinstance(f, Damage)] == [(0, 64), (64, untouched[0].offset)]


def test_an_unreadable_block_is_damage_though_only_zeros_are_around_it() -> None:
    data = SMALL + bytes(20_000)
    found = list(segment.scan_with(refusing(data, 8192, 12288), len(data)))
    assert [type(f) for f in found] == [Frame] * len(EXPECTED) + [Damage]
    assert found[-1].end == len(data)


def test_what_cannot_be_read_for_a_moment_is_damage_and_no_more() -> None:
    """Wherever one read of a scan fails, every frame but the one that it was for comes out."""
    data = build([bytes([i]) * 3000 for i in range(20)])
    data = bytes(segment.HEADER_BYTES) + data[segment.HEADER_BYTES :]  # the salt is that of the first frame
    whole = {f.lsn for f in segment.scan(data) if isinstance(f, Frame)}
    for failing in range(1, 60):
        reads = iter(range(10_000))
        read = lambda at, size, n=failing, reads=reads: b"" if next(reads) == n else data[at : at + size]  # noqa: E731
        found = {f.lsn for f in segment.scan_with(read, len(data)) if isinstance(f, Frame)}
        assert len(whole - found) <= 1, failing


def test_golden_bytes() -> None:
    """Written by format 1 once; every later version must read it, and this version writes exactly it."""
    salt = segment.salt_of(UUID, 7)
    written = SMALL + segment.encode_seal(106, 6, salt)
    assert GOLDEN.read_bytes() == written
    assert good(written)[100] == b""

"""Compression: round trips, and everything that a damaged or hostile frame can say."""

import random

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from trackd_proto import limits
from trackd_proto.compress import CompressionError, Compressor, Decompressor

DATA = random.Random(7).randbytes(3_000) + b"0.1234" * 500


@given(st.binary(max_size=20_000))
def test_round_trip(data: bytes) -> None:
    assert Decompressor().decompress(Compressor().compress(data), len(data)) == data


def test_one_compressor_makes_independent_frames() -> None:
    compressor = Compressor()
    first, second = compressor.compress(DATA), compressor.compress(DATA)
    assert first == second
    assert Decompressor().decompress(second, len(DATA)) == DATA


def test_the_largest_batch() -> None:
    data = bytes(limits.MAX_BATCH_BYTES)
    assert Decompressor().decompress(Compressor().compress(data), len(data)) == data


def test_every_flipped_bit_is_noticed() -> None:
    frame = Compressor().compress(DATA)
    for bit in range(0, len(frame) * 8, 7):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            raw = Decompressor().decompress(bytes(damaged), len(DATA))
        except CompressionError:
            continue
        assert raw == DATA, f"bit {bit}"  # a bit that zstd does not use


def test_every_truncation_is_noticed() -> None:
    frame = Compressor().compress(DATA)
    for length in range(len(frame)):
        with pytest.raises(CompressionError):
            Decompressor().decompress(frame[:length], len(DATA))


def _frame(data: bytes, **parameters: int) -> bytes:
    options = {zstd.CompressionParameter[name]: value for name, value in parameters.items()}
    return zstd.compress(data, options=options)


@pytest.mark.parametrize(
    ("frame", "raw_bytes", "why"),
    [
        (Compressor().compress(DATA) + b"x", len(DATA), "behind it"),
        (Compressor().compress(DATA) * 2, len(DATA), "behind it"),
        (Compressor().compress(DATA), len(DATA) - 1, "header says"),
        (_frame(DATA, content_size_flag=0), len(DATA), "header says None"),
        (Compressor().compress(bytes(100 * limits.MIB)), 100 * limits.MIB, "over the limit"),
        (Compressor().compress(bytes(100 * limits.MIB)), 1_000, "header says"),
        (b"", 0, "damaged"),
        (b"not zstd at all", 15, "damaged"),
    ],
)
def test_refused(frame: bytes, raw_bytes: int, why: str) -> None:
    with pytest.raises(CompressionError, match=why):
        Decompressor().decompress(frame, raw_bytes)


def test_a_window_over_the_limit_is_refused() -> None:
    """A frame in pieces states its window; one that wants 64 MiB of a reader is not read."""
    options = {zstd.CompressionParameter.window_log: 26, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(None)
    stream = compressor.compress(bytes(100)) + compressor.flush()
    header = bytearray(stream)
    assert not header[4] & 0x20, "a single-segment frame has no window"
    with pytest.raises(CompressionError):
        Decompressor().decompress(stream, 100)

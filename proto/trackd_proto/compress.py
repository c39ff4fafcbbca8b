"""zstd with limits: a lying or hostile frame is refused before memory is spent on it.

By backports.zstd, the standard library's `compression.zstd` for the Pythons before 3.14: 2 MB installed, where the
zstandard package takes 23.
"""

from typing import Final

from backports import zstd

from trackd_proto import limits

LEVEL: Final = 3
_WINDOW_LOG: Final = 23
"""log2 of the largest window (8 MiB) that a frame may ask a reader to keep."""


class CompressionError(ValueError):
    """Compressed data that is damaged, of unknown size or too large."""


class Compressor:
    """Compresses batches; keep one per thread (the context is reused)."""

    def __init__(self, level: int = LEVEL) -> None:
        parameters = zstd.CompressionParameter
        self._context = zstd.ZstdCompressor(options={parameters.compression_level: level, parameters.checksum_flag: 1})

    def compress(self, data: bytes) -> bytes:
        """One frame with its size and a checksum in it."""
        self._context.set_pledged_input_size(len(data))
        return self._context.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


class Decompressor:
    """Decompresses batches; keep one per thread."""

    def decompress(self, data: bytes, raw_bytes: int) -> bytes:
        """The original data, which must be exactly `raw_bytes` long. Raises CompressionError."""
        if raw_bytes > limits.MAX_BATCH_BYTES:
            raise CompressionError(f"a batch of {raw_bytes} bytes is over the limit of {limits.MAX_BATCH_BYTES}")
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            size = zstd.get_frame_info(data).decompressed_size
            if size != raw_bytes:
                raise CompressionError(f"zstd header says {size} bytes, the batch says {raw_bytes}")
            raw = frame.decompress(data, max_length=raw_bytes)
            if not frame.eof and len(raw) == raw_bytes:
                raw += frame.decompress(b"", max_length=1)  # only the checksum is left
        except zstd.ZstdError as error:
            raise CompressionError(f"damaged zstd data: {error}") from error
        if not frame.eof or frame.unused_data or len(raw) != raw_bytes:
            raise CompressionError(f"zstd data is cut short or has something behind it ({len(data)} bytes)")
        return raw

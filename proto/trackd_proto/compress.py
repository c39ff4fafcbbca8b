"""zstd with limits: a lying or hostile frame is refused before memory is spent on it."""

from typing import Final

import zstandard

from trackd_proto import limits

LEVEL: Final = 3
_WINDOW_BYTES: Final = 8 * limits.MIB


class CompressionError(ValueError):
    """Compressed data that is damaged, of unknown size or too large."""


class Compressor:
    """Compresses batches; keep one per thread (the context is reused)."""

    def __init__(self, level: int = LEVEL) -> None:
        self._compress = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=True).compress

    def compress(self, data: bytes) -> bytes:
        return self._compress(data)


class Decompressor:
    """Decompresses batches; keep one per thread."""

    def __init__(self) -> None:
        self._decompress = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompress

    def decompress(self, data: bytes, raw_bytes: int) -> bytes:
        """The original data, which must be exactly `raw_bytes` long. Raises CompressionError."""
        if raw_bytes > limits.MAX_BATCH_BYTES:
            raise CompressionError(f"a batch of {raw_bytes} bytes is over the limit of {limits.MAX_BATCH_BYTES}")
        try:
            header = zstandard.get_frame_parameters(data)
            # max_output_size is ignored by the library when the header declares a size, so the header is checked first.
            if header.content_size != raw_bytes or header.window_size > _WINDOW_BYTES:
                raise CompressionError(f"zstd header says {header.content_size} bytes, the batch says {raw_bytes}")
            return self._decompress(data, max_output_size=raw_bytes, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CompressionError(f"damaged zstd data: {error}") from error

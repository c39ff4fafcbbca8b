"""Cut records that are here already off the front of a batch."""

from itertools import islice

from trackd_proto import batch as batch_format
from trackd_proto.compress import Decompressor
from trackd_proto.v1 import ingest_pb2


def raw_data(batch: ingest_pb2.Batch, decompressor: Decompressor) -> bytes:
    """The batch's records. Raises CompressionError, also for an unknown codec's data that is no zstd frame."""
    if batch.codec == ingest_pb2.CODEC_NONE:
        return batch.data
    return decompressor.decompress(batch.data, batch.raw_bytes)


def trim(batch: ingest_pb2.Batch, expected: int) -> ingest_pb2.Batch:
    """The part of `batch` from seq `expected` on, uncompressed. Raises BatchError, CompressionError."""
    skipped = expected - batch.first_seq
    data = b""
    if not batch.loss_reason:
        raw = raw_data(batch, Decompressor())
        skippable = islice(batch_format.split(raw), skipped)
        data = raw[sum(batch_format.PREFIX.size + len(record) for record in skippable) :]
    trimmed = ingest_pb2.Batch()
    trimmed.CopyFrom(batch)
    trimmed.first_seq, trimmed.count = expected, batch.count - skipped
    trimmed.codec, trimmed.raw_bytes, trimmed.data = ingest_pb2.CODEC_NONE, len(data), data
    return trimmed

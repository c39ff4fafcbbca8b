"""Cut a batch between its records."""

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
    return part(batch, expected, batch.first_seq + batch.count)


def part(batch: ingest_pb2.Batch, first: int, after: int) -> ingest_pb2.Batch:
    """The seqs [first, after) of `batch`, uncompressed. Raises BatchError, CompressionError."""
    data = b""
    if not batch.loss_reason:
        raw = raw_data(batch, Decompressor())
        sizes = [
            batch_format.PREFIX.size + len(record)
            for record in islice(batch_format.split(raw), after - batch.first_seq)
        ]
        start = sum(sizes[: first - batch.first_seq])
        data = raw[start : sum(sizes)]
    cut = ingest_pb2.Batch()
    cut.CopyFrom(batch)
    cut.first_seq, cut.count = first, after - first
    cut.codec, cut.raw_bytes, cut.data = ingest_pb2.CODEC_NONE, len(data), data
    return cut

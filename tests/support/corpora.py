"""Small logs and spools of known content, and ways to damage them.

The oracle does not use the readers under test: it remembers where each frame was put, and a frame is expected back if
and only if its bytes (header and payload) are the same in the damaged image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
from trackd_daemon.wal import frames
from trackd_proto import batch, checksum, segment, spool
from trackd_proto.compress import Compressor
from trackd_proto.v1 import ingest_pb2

ROUTE: Final = "embedded"
SECTOR: Final = 512
UUID: Final = bytes(range(16))


@dataclass(frozen=True)
class Placed:
    """One frame and what it stands for."""

    file: int
    start: int
    end: int
    """Of its payload; padding behind it means nothing."""
    kind: int
    writer: bytes = b""
    first_seq: int = 0
    count: int = 0
    data: bytes = b""
    """What must come out: the payload of a WAL frame, the record of a spool frame."""

    @property
    def seqs(self) -> range:
        return range(self.first_seq, self.first_seq + self.count)

    def is_whole(self, image: bytes, original: bytes) -> bool:
        return image[self.start : self.end] == original[self.start : self.end]


@dataclass
class Corpus:
    """Files by number and the frames in them, in order."""

    name: str
    files: dict[int, bytes] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)

    @property
    def newest(self) -> int:
        return max(self.files)

    def whole(self, images: dict[int, bytes]) -> list[Placed]:
        """The frames whose bytes are untouched in `images`."""
        return [p for p in self.placed if p.file in images and p.is_whole(images[p.file], self.files[p.file])]

    def tops(self) -> dict[bytes, int]:
        """Highest seq by writer."""
        return {p.writer: p.first_seq + p.count - 1 for p in self.placed if p.count}


# -------------------------------------------------------------------------------------------------------- logs


def wal(
    name: str,
    *,
    batches: int,
    segments: int = 1,
    writers: int = 1,
    record_bytes: int = 40,
    has_losses: bool = False,
    is_compressed: bool = True,
) -> Corpus:
    """A log as the writer leaves it: every segment begins with a checkpoint, acks and losses stand between."""
    rng = random.Random(name)
    corpus, lsn, compress = Corpus(name), 1, Compressor().compress
    received = {bytes([65 + i]) * 16: 0 for i in range(writers)}
    acked: dict[bytes, int] = {}
    for number in range(1, segments + 1):
        salt = segment.salt_of(UUID, number)
        image = bytearray(segment.encode_header(UUID, number, lsn, 1_700_000_000_000_000_000))

        def add(
            kind: int, payload: bytes, writer: bytes = b"", first: int = 0, count: int = 0, *, salt: int = salt
        ) -> None:
            nonlocal lsn
            image.extend(segment.encode_frame(kind, lsn, payload, salt))  # noqa: B023 - called in this round only
            start = len(image) - segment.frame_size(len(payload))  # noqa: B023
            end = start + segment.FRAME_BYTES + len(payload)
            corpus.placed.append(Placed(number, start, end, kind, writer, first, count, payload))  # noqa: B023
            lsn += 1

        rows = [frames.Checkpoint(w, top, acked.get(w, 0), ROUTE, "p", "r", 1) for w, top in received.items() if top]
        add(segment.CKPT, frames.encode_checkpoints(rows))
        for index in range(batches):
            writer = list(received)[index % writers]
            first, is_loss = received[writer] + 1, has_losses and index % 5 == 3
            count = rng.randint(1, 4)
            received[writer] += count
            message = ingest_pb2.Batch(
                writer_id=writer, first_seq=first, count=count, route=ROUTE, project="p", run_id="r"
            )
            if is_loss:
                message.loss_reason = "full"
            else:
                raw = batch.join([rng.randbytes(rng.randint(1, 2 * record_bytes)) for _ in range(count)])
                message.raw_bytes, message.data = len(raw), compress(raw) if is_compressed else raw
                message.codec = ingest_pb2.CODEC_ZSTD if is_compressed else ingest_pb2.CODEC_NONE
            kind = segment.LOSS if is_loss else segment.DATA
            add(kind, message.SerializeToString(), writer, first, count)
            if index % 4 == 3 and number == 1 and segments > 1:
                # Acked once and asked for again: the hub was restored. All of it must still come out.
                add(segment.ACK, frames.encode_acks({}))
        corpus.files[number] = bytes(image)
    return corpus


def wals(scale: int = 1) -> list[Corpus]:
    """The five corpora of the torn writes: from one frame to three segments. `scale`: frames in the larger ones."""
    return [
        wal("one frame", batches=1, record_bytes=30),
        wal("one segment, plain", batches=3 * scale, is_compressed=False),
        wal("one segment, two writers, losses", batches=4 * scale, writers=2, has_losses=True),
        wal("large records", batches=2, record_bytes=200 * scale),
        wal("three segments", batches=3 * scale, segments=3, writers=2, has_losses=True),
    ]


# ------------------------------------------------------------------------------------------------------- spools


WRITER: Final = b"W" * 16


def chunks(name: str, *, records: int, files: int = 1, record_bytes: int = 40, has_losses: bool = False) -> Corpus:
    """The chunks of one writer, written by the description of the format alone. Every chunk but the last has an END."""
    rng = random.Random(name)
    corpus, seq, crc = Corpus(name), 1, 0
    for number in range(files):
        image = bytearray(spool.encode_chunk_header(WRITER, number, 1 << 20))
        for index in range(records):
            is_loss = has_losses and index % 7 == 4
            count = rng.randint(1, 9) if is_loss else 1
            payload = (
                msgspec.msgpack.encode([count, "full"]) if is_loss else rng.randbytes(rng.randint(1, record_bytes))
            )
            check = checksum.crc32(payload, crc ^ 0xFFFFFFFF if is_loss else crc)
            start = len(image)
            image += spool.FRAME.pack(len(payload), check, crc, spool.LOSS_FLAG if is_loss else 0, seq) + payload
            corpus.placed.append(Placed(number, start, len(image), int(is_loss), WRITER, seq, count, payload))
            image += bytes(-len(image) % 8)
            seq, crc = seq + count, crc if is_loss else check
        image += spool.FRAME.pack(spool.END, 0, 0, 0, 0) if number < files - 1 else bytes(64)
        corpus.files[number] = bytes(image)
    return corpus


def spools(scale: int = 1) -> list[Corpus]:
    """The spools of the torn writes."""
    return [
        chunks("one record", records=1),
        chunks("one chunk", records=6 * scale),
        chunks("one chunk, losses", records=6 * scale, has_losses=True),
        chunks("three chunks", records=4 * scale, files=3, has_losses=True),
    ]


# ------------------------------------------------------------------------------------------------------- damage


def torn(image: bytes, at: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """What a write that stopped at byte `at` may leave: cut, zeros, garbage, and sectors that came or did not."""
    rng = random.Random(seed + at)
    lost, sector = len(image) - at, at - at % SECTOR
    yield "cut", image[:at]
    yield "zeros", image[:at] + bytes(lost)
    yield "garbage", image[:at] + rng.randbytes(lost)
    yield "half a sector", image[:at] + rng.randbytes(min(sector + SECTOR, len(image)) - at)
    yield "sector lost, later ones there", image[:at] + bytes(min(SECTOR, lost)) + image[at + SECTOR :]


def flipped(image: bytes, *bits: int) -> bytes:
    """`image` with these bits turned over."""
    damaged = bytearray(image)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def overwritten(image: bytes, at: int, data: bytes) -> bytes:
    """`image` with `data` at `at`, no longer than before."""
    return (image[:at] + data + image[at + len(data) :])[: len(image)]

"""A writer as the daemon sees one: a stream of real records, pushed, resumed and followed over gRPC."""

import asyncio
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from grpc import aio
from trackd_proto import batch, records
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2

_encode = msgspec.msgpack.Encoder().encode
NOW_US = 1_700_000_000_000_000


@dataclass
class Writer:
    """Record 1 is START, record n is the row of step n - 2 with value n."""

    run_id: str
    project: str = "p"
    route: str = "embedded"
    writer_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)

    def record(self, seq: int) -> bytes:
        if seq > 1:
            return _encode([records.ROW, NOW_US + seq, seq - 2, {"value": seq}])
        about = {
            "project": self.project, "run_id": self.run_id, "entity": None, "attempt": self.writer_id.hex(),
            "attempt_start_us": NOW_US, "name": self.run_id, "notes": None, "tags": [], "group": None,
            "writer": {"role": "main", "pid": os.getpid(), "host": "h", "parent": None}, "job_type": None,
            "created_us": NOW_US, "sdk": "0", "python": "3", "program": None, "user": "u", "resume": None,
        }  # fmt: skip
        return _encode([records.START, NOW_US, 0, about])

    def batch(self, first: int, last: int) -> ingest_pb2.Batch:
        """The records [first, last]."""
        data = batch.join([self.record(seq) for seq in range(first, last + 1)])
        return ingest_pb2.Batch(
            writer_id=self.writer_id, first_seq=first, count=last - first + 1, data=data,
            route=self.route, project=self.project, run_id=self.run_id,
        )  # fmt: skip


async def resume(link: instance.Link, writers: Sequence[Writer]) -> dict[bytes, ingest_pb2.Watermark]:
    """The daemon's watermarks of these writers."""
    request = ingest_pb2.ResumeRequest(writer_ids=[writer.writer_id for writer in writers])
    reply = await link.ingest.Resume(request, timeout=10)
    return {mark.writer_id: mark for mark in reply.watermarks}


def _reached(mark: ingest_pb2.Watermark, until: str) -> int:
    return max(getattr(mark, until), mark.committed)


async def push(
    link: instance.Link, writers: Sequence[Writer], last: int, *, until: str = "durable", size: int = 50
) -> list[ingest_pb2.Notice]:
    """Push every writer's records up to seq `last`, from where the daemon is, and wait for the watermark `until`.

    The notices that came meanwhile. What the hub has is durable too: past a full log it goes there at once.
    """
    marks = await resume(link, writers)
    call = link.ingest.Push()
    await call.write(ingest_pb2.PushRequest(live=[writer.writer_id for writer in writers]))
    for writer in writers:
        for first in range(marks[writer.writer_id].received + 1, last + 1, size):
            request = ingest_pb2.PushRequest(batches=[writer.batch(first, min(first + size - 1, last))])
            await call.write(request)
    reached = {writer.writer_id: _reached(marks[writer.writer_id], until) for writer in writers}
    notices: list[ingest_pb2.Notice] = []
    while min(reached.values()) < last:
        reply = await asyncio.wait_for(call.read(), 60)
        if reply is aio.EOF:  # type: ignore[attr-defined]
            raise ConnectionError("the stream ended")
        notices += reply.notices
        for mark in reply.watermarks:
            reached[mark.writer_id] = max(reached[mark.writer_id], _reached(mark, until))
    call.cancel()
    return notices

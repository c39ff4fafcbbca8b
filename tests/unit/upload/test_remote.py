"""What is asked of a hub in another process, as messages."""

from types import SimpleNamespace
from typing import Any

import pytest
from trackd_daemon.upload import remote
from trackd_proto import limits, wire
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2


class Hub:
    """Refuses what a hub refuses, and has ten records of each writer."""

    def __init__(self) -> None:
        self.resumed: list[int] = []
        self.live: list[bytes] = []
        self.channel = SimpleNamespace(close=self.close)
        self.ingest = self

    async def Resume(self, request: ingest_pb2.ResumeRequest, timeout: float) -> ingest_pb2.ResumeReply:
        wire.check_entries(request.SerializeToString())
        self.resumed.append(len(request.writer_ids))
        return ingest_pb2.ResumeReply(
            watermarks=[ingest_pb2.Watermark(writer_id=w, committed=10) for w in request.writer_ids]
        )

    def Push(self) -> "Hub":
        return self

    async def write(self, request: ingest_pb2.PushRequest) -> None:
        wire.check_entries(request.SerializeToString())
        self.live += request.live

    def cancel(self) -> None: ...

    async def close(self, _grace: float | None) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    there = Hub()

    async def connect_to(*_arguments: Any, **_options: Any) -> Hub:
        return there

    monkeypatch.setattr(instance, "connect_to", connect_to)
    return there


async def test_more_writers_than_one_message_may_name_are_asked_for_in_several(hub: Hub) -> None:
    writer_ids = [number.to_bytes(16) for number in range(limits.MAX_REQUEST_ENTRIES + 5000)]
    hop = remote.RemoteHub("127.0.0.1:1", lambda: b"c" * 32)
    assert await hop.open(writer_ids) == dict.fromkeys(writer_ids, 11)
    assert max(hub.resumed) <= 10_000
    await hop.alive(writer_ids)
    assert hub.live == writer_ids
    await hop.close()


async def test_a_hub_is_asked_even_if_there_is_no_writer_to_ask_about(hub: Hub) -> None:
    hop = remote.RemoteHub("127.0.0.1:1", lambda: b"c" * 32)
    assert await hop.open([]) == {}
    assert hub.resumed == [0]
    await hop.close()

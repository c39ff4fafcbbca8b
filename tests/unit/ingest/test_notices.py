"""The look-up of links and stop requests outlives whatever fails in it."""

import asyncio
import logging
from collections.abc import Sequence

import pytest
from trackd_daemon.errors import StoreError
from trackd_daemon.ingest import notices
from trackd_proto.v1 import ingest_pb2

W = b"w" * 16


class Store:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def links(self, writer_ids: Sequence[bytes]) -> dict[bytes, tuple[str, str]]:
        if self.errors:
            raise self.errors.pop(0)
        return dict.fromkeys(writer_ids, ("p", "r"))

    def stops(self, writer_ids: Sequence[bytes]) -> set[bytes]:
        return set(writer_ids)


@pytest.mark.parametrize("kind", [StoreError, OSError, RuntimeError])
async def test_a_stop_request_gets_through_after_any_error(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "_LOOK_S", 0.01)
    told: asyncio.Queue[ingest_pb2.Notice] = asyncio.Queue()
    store = Store(*[kind("not now")] * 5)
    notifier = notices.Notifier(store, lambda: "http://x", told.put_nowait)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "trackd"):
        notifier.start()
        notifier.seen([W])
        assert (await asyncio.wait_for(told.get(), 20)).stop
        await notifier.stop()
    assert store.errors == []
    assert len(caplog.records) == 1, "said once, not at every look"

"""A real hub for tests: an embedded store behind the real HTTP server, filled with records as a trainer's would be."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from trackd_daemon.http.server import HttpServer
from trackd_daemon.model import Batch
from trackd_daemon.store.embedded import EmbeddedStore
from trackd_proto import batch, limits, records

Value = Any
Row = tuple[int, Mapping[str, Value]]
_BATCH_ROWS = 5_000


class SeedRun:
    """One run with one writer; every method is committed when it returns."""

    def __init__(
        self,
        store: EmbeddedStore,
        project: str,
        run_id: str,
        *,
        name: str = "",
        config: Mapping[str, Value] | None = None,
        tags: Iterable[str] = (),
        created_s: float | None = None,
        **fields: Value,
    ) -> None:
        self.project, self.run_id = project, run_id
        self._store = store
        self._writer = uuid.uuid4().bytes
        self._seq = 1
        self._now_us = int((time.time() if created_s is None else created_s) * 1e6)
        start = {
            "project": project,
            "run_id": run_id,
            "entity": None,
            "attempt": uuid.uuid4().hex,
            "attempt_start_us": self._now_us,
            "writer": {"role": "main", "pid": 1, "host": "node-1", "parent": None},
            "name": name or run_id,
            "notes": None,
            "tags": list(tags),
            "group": None,
            "job_type": None,
            "created_us": self._now_us,
            "sdk": "0",
            "python": "3.11",
            "program": "train.py",
            "user": "ada",
            "resume": None,
            **fields,
        }
        self._commit([(records.START, 0, start), (records.CONFIG, 0, dict(config or {}))])

    def log(self, rows: Iterable[Row], every_s: float = 0.1) -> None:
        """History rows at these steps, `every_s` apart."""
        part: list[tuple[int, int, Mapping[str, Value]]] = []
        for step, values in rows:
            part.append((records.ROW, step, values))
            if len(part) == _BATCH_ROWS:
                self._commit(part, every_s)
                part = []
        if part:
            self._commit(part, every_s)

    def system(self, rows: Iterable[Mapping[str, Value]], every_s: float = 1.0) -> None:
        """System metrics, `every_s` apart."""
        self._commit([(records.SYSTEM, 0, row) for row in rows], every_s)

    def lose(self, count: int, reason: str) -> None:
        """So many records that are declared lost."""
        lost = Batch(self._writer, self.project, self.run_id, self._seq, count, b"", reason)
        (outcome,) = self._store.ingest([lost])
        self._seq += count
        assert outcome.next_seq == self._seq, outcome

    def finish(self, state: str = "finished", exit_code: int = 0, cause: str | None = None) -> None:
        """The end of the run."""
        self._commit([(records.EXIT, 0, {"state": state, "exit_code": exit_code, "cause": cause})])

    def _commit(self, items: Iterable[tuple[int, int, Mapping[str, Value]]], every_s: float = 0.0) -> None:
        payloads = []
        for kind, x, body in items:
            payloads.append(msgspec.msgpack.encode([kind, self._now_us, x, body]))
            self._now_us += int(every_s * 1e6)
        for part in _split(payloads):
            taken = Batch(self._writer, self.project, self.run_id, self._seq, len(part), batch.join(part))
            (outcome,) = self._store.ingest([taken])
            self._seq += len(part)
            assert outcome.next_seq == self._seq, outcome


def _split(payloads: list[bytes]) -> Iterable[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        if part and size + len(payload) > limits.MAX_BATCH_BYTES // 2:
            yield part
            part, size = [], 0
        part.append(payload)
        size += len(payload) + batch.PREFIX.size
    if part:
        yield part


class SeedHub:
    """An embedded store served on loopback from a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = EmbeddedStore.open(directory / "store")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="seed-hub")
        self._thread.start()
        self.server = self._make_server()
        self._call(self.server.start())

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return self.server.url

    def run(self, project: str, run_id: str, **fields: Value) -> SeedRun:
        """A new run."""
        return SeedRun(self.store, project, run_id, **fields)

    def link(self, path: str = "/") -> str:
        """The address of a page with a fresh ticket, as `trackd open` prints it."""
        ticket, _ = self.server.issue_ticket()
        return f"{self.url}{path}#ticket={ticket}"

    def stop_serving(self) -> None:
        """The daemon goes away; the store stays open."""
        self._call(self.server.stop())

    def serve_again(self) -> None:
        """The daemon is back, on the same port."""
        self.server = self._make_server()
        self._call(self.server.start())

    def close(self) -> None:
        """End the server, its thread and the store."""
        self._call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.store.close()

    def _make_server(self) -> HttpServer:
        return HttpServer(
            self.store,
            b"a cookie of thirty-two bytes....",
            sessions_path=self.directory / "sessions.json",
            port_path=self.directory / "port",
        )

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=20)

"""A TCP proxy that misbehaves: slow, narrow, deaf, cutting, or answering like a reverse proxy in front of nothing.

Every fault is counted in `fired`, so that a test can prove that it happened.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator

_CHUNK = 16 * 1024
_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Proxy:
    """Between clients and 127.0.0.1:`upstream_port`. Attributes may be changed at any time."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.latency_s = 0.0
        """One way."""
        self.bytes_per_s = 0.0
        """Per direction and connection; 0: no limit."""
        self.is_resetting = False
        """Accepts and resets at once: what a client sees of a closed port, and countable."""
        self.is_black_hole = False
        """Nothing goes through in either direction, and nobody is told."""
        self.is_half_open = False
        """What the upstream says never arrives."""
        self.cut_after_bytes = 0
        """Reset a connection when so many bytes came from the client: in the middle of a message. 0: never."""
        self.status_h1 = 0
        self.status_h2 = 0
        """Answer requests with this HTTP status instead of passing them on."""
        self.connects: list[float] = []
        """When clients connected (monotonic seconds)."""
        self.fired: Counter[str] = Counter()
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._spawn, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self.reset_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def heal(self) -> None:
        """No fault from now on; connections that suffered from one are reset."""
        self.latency_s = self.bytes_per_s = 0.0
        self.is_resetting = self.is_black_hole = self.is_half_open = False
        self.cut_after_bytes = self.status_h1 = self.status_h2 = 0

    def reset_all(self) -> None:
        """RST to everybody."""
        for writer in list(self._open):
            self.fired["reset"] += 1
            _reset(writer)

    def _spawn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects.append(time.monotonic())
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._talk(reader, writer)
        finally:
            self._open.discard(writer)
            _reset(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_resetting:
            self.fired["refused"] += 1
        elif self.status_h1:
            await reader.read(_CHUNK)
            self.fired["http/1.1"] += 1
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n" % self.status_h1)
            await writer.drain()
        elif self.status_h2:
            await self._answer_h2(reader, writer)
        else:
            await self._relay(reader, writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        pumps = {
            asyncio.ensure_future(self._pump(reader, up_writer, is_upward=True)),
            asyncio.ensure_future(self._pump(up_reader, writer, is_upward=False)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            _reset(up_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_upward: bool) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        forwarding = asyncio.ensure_future(self._forward(queue, writer, is_upward=is_upward))
        count = 0
        try:
            while data := await reader.read(_CHUNK):
                count += len(data)
                if is_upward and 0 < self.cut_after_bytes < count:
                    self.fired["cut"] += 1
                    return
                if forwarding.done():
                    return
                await queue.put((time.monotonic() + self.latency_s, data))
            await queue.put((0.0, b""))
            await forwarding
        finally:
            forwarding.cancel()

    async def _forward(
        self, queue: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, *, is_upward: bool
    ) -> None:
        while (item := await queue.get())[1]:
            due, data = item
            if (wait_s := due - time.monotonic()) > 0:
                self.fired["delayed"] += 1
                await asyncio.sleep(wait_s)
            if self.bytes_per_s:
                self.fired["narrow"] += 1
                await asyncio.sleep(len(data) / self.bytes_per_s)
            if self.is_black_hole or (self.is_half_open and not is_upward):
                self.fired["black hole" if self.is_black_hole else "half-open"] += 1
                continue
            writer.write(data)
            await writer.drain()

    async def _answer_h2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every request over HTTP/2 gets the status and no more."""
        await reader.readexactly(len(_H2_PREFACE))
        writer.write(_frame(4, 0, 0, b""))  # SETTINGS
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == 4 and not flags & 1:
                writer.write(_frame(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                writer.write(_frame(6, 1, 0, body))  # PING
            elif kind == 1:
                self.fired["http/2"] += 1
                block = b"\x08\x03%d" % self.status_h2  # a literal value for :status of the static table
                writer.write(_frame(1, 5, stream, block))
            await writer.drain()


@contextlib.asynccontextmanager
async def proxying(upstream_port: int) -> AsyncIterator[Proxy]:
    """A running proxy."""
    proxy = Proxy(upstream_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

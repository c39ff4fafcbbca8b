"""A hub in another process, over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import grpc
from grpc import aio
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import VERSION

from trackd_daemon.upload.hop import Answer, HopRefusedError, HopRejectedError, HopUnreachableError

_TIMEOUT_S: Final = 10.0
_REFUSALS: Final = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
)
_RETRY_AFTER: Final = "retry-after"
"""Key of trailing metadata: seconds."""
_WRITERS: Final = 10_000
"""In one message: a hub takes no more than `limits.MAX_REQUEST_ENTRIES`, and a node that runs for months has more."""
_LONGEST_RETRY_AFTER_S: Final = 600.0
_TOO_LARGE: Final = "message larger than max"
"""What gRPC itself says of a message over the receiver's limit, with the code of a full disk."""


class RemoteHub:
    """The next hop of a route HOST:PORT."""

    state = "connected"

    def __init__(self, address: str, cookie: Callable[[], bytes]) -> None:
        self._address = address
        self._cookie = cookie
        self._link: instance.Link | None = None
        self._call: Any = None

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """See Hop."""
        await self.close()
        try:
            cookie = await asyncio.to_thread(self._cookie)
            self._link = await instance.connect_to(self._address, cookie, client=f"agent/{VERSION}")
            next_seqs = await _resume(self._link, writer_ids)
            self._call = self._link.ingest.Push()
        except (instance.ImpostorError, instance.VersionMismatchError) as error:
            raise HopRefusedError(str(error)) from error
        except aio.AioRpcError as error:
            raise _opening(error) from error
        except instance.NotReachableError as error:
            known = error.__cause__
            raise (
                _opening(known, str(error)) if isinstance(known, aio.AioRpcError) else HopUnreachableError(str(error))
            ) from error
        except (OSError, ValueError) as error:
            raise HopRefusedError(f"cannot read the credential for {self._address}: {error}") from error
        return next_seqs

    async def send(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """See Hop."""
        await self._write(ingest_pb2.PushRequest(batches=batches))

    async def alive(self, writer_ids: Sequence[bytes]) -> None:
        """See Hop."""
        for some in _slices(writer_ids):
            await self._write(ingest_pb2.PushRequest(live=some))

    async def answers(self) -> AsyncIterator[Answer]:
        """See Hop."""
        call = self._call
        try:
            while (reply := await instance.uncancelled(call.read())) is not aio.EOF:  # type: ignore[attr-defined]
                yield Answer(
                    {mark.writer_id: mark.committed for mark in reply.watermarks},
                    {gap.writer_id: gap.expected for gap in reply.gaps},
                    list(reply.notices),
                )
        except aio.AioRpcError as error:
            raise _sorted(error) from error
        except instance.NotReachableError as error:
            raise HopUnreachableError(f"{self._address} cancelled the connection") from error
        raise HopUnreachableError(f"{self._address} ended the connection")

    async def close(self) -> None:
        """See Hop."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.channel.close(None)

    async def _write(self, request: ingest_pb2.PushRequest) -> None:
        call = self._call
        if call is None:
            raise HopUnreachableError(f"not connected to {self._address}")
        try:
            await instance.uncancelled(call.write(request))
        except aio.AioRpcError as error:
            # A write into a call that is over fails with an error of its own; the call knows why it is over.
            raise _by_code(await call.code(), await call.details(), await call.trailing_metadata()) from error
        except (aio.UsageError, asyncio.InvalidStateError, instance.NotReachableError) as error:
            raise HopUnreachableError(f"{self._address} ended the connection") from error


async def _resume(link: instance.Link, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
    """The next seq that it expects of each of these writers. Asked of none, too: a hub must answer before it is sent
    anything."""
    next_seqs: dict[bytes, int] = {}
    for some in _slices(writer_ids):
        resume = ingest_pb2.ResumeRequest(writer_ids=some)
        reply = await instance.uncancelled(link.ingest.Resume(resume, timeout=_TIMEOUT_S))
        next_seqs |= {mark.writer_id: mark.committed + 1 for mark in reply.watermarks}
    return next_seqs


def _slices(writer_ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """As many as one message may hold at a time; one slice at least."""
    for start in range(0, max(len(writer_ids), 1), _WRITERS):
        yield writer_ids[start : start + _WRITERS]


def _sorted(error: aio.AioRpcError, text: str = "") -> ConnectionError:
    """By what must be done about it."""
    error.with_traceback(None)  # its frames hold the call, and thereby a closed channel
    return _by_code(error.code(), text or error.details(), error.trailing_metadata())


def _opening(error: aio.AioRpcError, text: str = "") -> ConnectionError:
    """While a connection opens nothing was sent yet that could be at fault."""
    found = _sorted(error, text)
    return HopRefusedError(str(found)) if isinstance(found, HopRejectedError) else found


def _by_code(code: grpc.StatusCode, details: str | None, metadata: Any) -> ConnectionError:
    text = details or code.name
    if code in _REFUSALS:
        return HopRefusedError(text)
    if code is grpc.StatusCode.INVALID_ARGUMENT or _TOO_LARGE in text:
        return HopRejectedError(text)
    failure = HopUnreachableError(text)
    failure.retry_after_s = _retry_after_s(metadata)
    return failure


def _retry_after_s(metadata: Any) -> float:
    for key, value in metadata or ():
        if key == _RETRY_AFTER and str(value).isdecimal():
            return min(float(value), _LONGEST_RETRY_AFTER_S)
    return 0.0

"""Nobody gets in without the cookie: every method but Hello needs the client's proof, and Hello proves the daemon."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio
from trackd_proto import limits, wire
from trackd_proto.local.instance import PROOF_KEY, client_proof, daemon_proof
from trackd_proto.v1 import ingest_pb2
from trackd_proto.version import PROTOCOL_MAX, PROTOCOL_MIN, VERSION

_OPEN_METHOD = "/trackd.v1.Ingest/Hello"
_REFUSED = "no valid credential: only processes of the user who runs this daemon may use it"


class Gate(aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers UNAUTHENTICATED to calls without the proof of this incarnation."""

    def __init__(self, cookie: bytes, epoch: int) -> None:
        self._expected = client_proof(cookie, epoch).encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Hand the call on or refuse it."""
        details: Any = handler_call_details
        if details.method == _OPEN_METHOD or self._is_proven(details.invocation_metadata):
            return _checked(await continuation(handler_call_details))
        return grpc.stream_stream_rpc_method_handler(_refuse)

    def _is_proven(self, metadata: Any) -> bool:
        given = next((value for key, value in metadata or () if key == PROOF_KEY), "")
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected)


def _checked(handler: Any) -> Any:
    """The handler, but a message of too many entries is refused before it takes memory."""
    if handler is None or handler.request_deserializer is None:
        return handler
    parse = handler.request_deserializer

    def check_and_parse(data: bytes) -> Any:
        wire.check_entries(data)
        return parse(data)

    return handler._replace(request_deserializer=check_and_parse)


async def _refuse(_requests: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, _REFUSED)


class Greeter:
    """Answers Hello."""

    def __init__(self, cookie: bytes, epoch: int, ack: "ingest_pb2.Ack.ValueType") -> None:
        self._cookie = cookie
        self._epoch = epoch
        self._ack = ack
        self.store_id = ""
        self.hub_url = ""

    async def hello(self, request: ingest_pb2.HelloRequest, context: Any) -> ingest_pb2.HelloReply:
        """Versions in common, and the proof over the client's nonce."""
        low, high = max(request.protocol_min, PROTOCOL_MIN), min(request.protocol_max, PROTOCOL_MAX)
        if low > high:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this daemon (trackd {VERSION}) speaks protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, the client "
                f"({request.client[:60]}) {request.protocol_min} to {request.protocol_max}: update the older one",
            )
        if len(request.nonce) != 16:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Hello needs a nonce of 16 bytes")
        return ingest_pb2.HelloReply(
            protocol=high,
            version=VERSION,
            proof=daemon_proof(self._cookie, request.nonce),
            ack=self._ack,
            epoch=self._epoch,
            store_id=self.store_id,
            max_request_bytes=limits.MAX_REQUEST_BYTES,
            hub_url=self.hub_url,
        )

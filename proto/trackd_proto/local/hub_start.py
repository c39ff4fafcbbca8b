"""Waits, over gRPC, until the hub inside a daemon is open."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc import aio

from trackd_proto.layout import Instance
from trackd_proto.local import instance
from trackd_proto.v1 import ingest_pb2

_NO_HUB = (
    "the daemon here is an agent without a hub ({}). See the dashboard of its upstream, or install the hub: "
    "pip install 'trackd[hub]', then `trackd stop`"
)


def wait(where: Instance, timeout_s: float) -> None:
    """Return when the hub of this directory's daemon serves HTTP. Raises ConnectionError, saying why it never will."""
    # In a thread of its own: in a notebook the caller stands inside a running event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(_wait(where, timeout_s))).result()


async def _wait(where: Instance, timeout_s: float) -> None:
    link = await instance.connect(where, client="api")
    try:
        # A ticket is what only an open hub can issue; this one is not used.
        await link.control.Ticket(ingest_pb2.TicketRequest(), timeout=timeout_s)
    except aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
            raise ConnectionError(_NO_HUB.format(error.details())) from error
        raise ConnectionError(f"the hub did not open ({error.details()}); its log is {where.log}") from error
    finally:
        await link.channel.close()

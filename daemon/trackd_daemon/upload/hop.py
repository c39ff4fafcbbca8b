"""What a route needs of the log behind it and of the next hop before it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trackd_proto.v1 import ingest_pb2

from trackd_daemon.wal.state import Position


class HopUnreachableError(ConnectionError):
    """It does not answer or cannot take anything now. Try again later, for ever."""

    retry_after_s: float = 0.0
    """It asked to be left alone for so long."""


class HopRefusedError(ConnectionError):
    """It does not want us (credential, version). Trying again soon is useless; somebody must do something."""


class HopRejectedError(ConnectionError):
    """It does not want something in what was sent last; what, must be found out."""


@dataclass(slots=True)
class Answer:
    """What came back."""

    committed: dict[bytes, int] = field(default_factory=dict)
    """Highest seq committed, by writer."""
    gaps: dict[bytes, int] = field(default_factory=dict)
    """The seq expected next, by writer that must be rewound."""
    notices: list[ingest_pb2.Notice] = field(default_factory=list)


class Source(Protocol):
    """The durable part of the log, as far as one route is concerned; a cursor that one thread at a time uses."""

    def read(self, end: Position, max_bytes: int) -> tuple[list[ingest_pb2.Batch], bool]:
        """Batches from the cursor on, of about `max_bytes`; True: everything before `end` has been read."""

    def rewind(self) -> None:
        """Go back to the oldest record there is."""

    def close(self) -> None:
        """Release what is held. Safe twice."""


class Hop(Protocol):
    """The next hop of a route. Every method raises HopUnreachableError or HopRefusedError, and send() and answers()
    HopRejectedError."""

    state: str
    """What it is when it works: "connected" or "embedded"."""

    async def open(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Connect; the next seq it expects of each of these writers."""

    async def send(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """Hand over one request. Returns before it is committed."""

    def answers(self) -> AsyncIterator[Answer]:
        """What comes back, until the connection ends."""

    async def alive(self, writer_ids: Sequence[bytes]) -> None:
        """These writers' processes are alive."""

    async def close(self) -> None:
        """End the connection. Safe twice."""

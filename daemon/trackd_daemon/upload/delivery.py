"""What one route sends next: in order per writer, within a window, only what the next hop lacks. Pure.

Holes are declared, never skipped in silence: where the log lacks seqs that the next hop expects, a LOSS goes out
before what follows.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from trackd_proto.limits import MIB

WINDOW_REQUESTS: Final = 4
WINDOW_BYTES: Final = 8 * MIB


class Hole(NamedTuple):
    """Seqs that are nowhere any more: [first_seq, first_seq + records)."""

    first_seq: int
    records: int


@dataclass(slots=True)
class _Request:
    tops: dict[bytes, int]
    """Highest seq in it, by writer."""
    size: int


class Delivery:
    """The state of one route's delivery."""

    def __init__(self, window_requests: int = WINDOW_REQUESTS, window_bytes: int = WINDOW_BYTES) -> None:
        self._window_requests = window_requests
        self._window_bytes = window_bytes
        self._next: dict[bytes, int] = {}
        self._committed: dict[bytes, int] = {}
        self._requests: deque[_Request] = deque()
        self._in_flight_bytes = 0

    def connected(self, next_seqs: dict[bytes, int]) -> None:
        """A connection begins; the next hop expects these seqs. Nothing is in flight any more."""
        self._next = dict(next_seqs)
        self._committed = {writer_id: seq - 1 for writer_id, seq in next_seqs.items()}
        self._requests.clear()
        self._in_flight_bytes = 0

    def has_room(self) -> bool:
        """Another request may go out."""
        return len(self._requests) < self._window_requests and self._in_flight_bytes < self._window_bytes

    def next_seq(self, writer_id: bytes, default: int) -> int:
        """The seq to send next; `default` for a writer that this connection has not seen."""
        return self._next.setdefault(writer_id, default)

    def admit(self, writer_id: bytes, first_seq: int, count: int, default: int) -> tuple[bool, Hole | None]:
        """Whether to send this batch, and what must be declared lost before it. Counts both as sent."""
        expected = self.next_seq(writer_id, default)
        if first_seq + count <= expected:
            return False, None
        self._next[writer_id] = first_seq + count
        return True, Hole(expected, first_seq - expected) if first_seq > expected else None

    def missing_tail(self, writer_id: bytes, durable: int, default: int) -> Hole | None:
        """The log has been read to its end: what it should have held up to `durable` and did not. Counts it as sent."""
        expected = self.next_seq(writer_id, default)
        if expected > durable:
            return None
        self._next[writer_id] = durable + 1
        return Hole(expected, durable - expected + 1)

    def sent(self, tops: dict[bytes, int], size: int) -> None:
        """A request of `size` bytes went out with records up to `tops`."""
        self._requests.append(_Request(tops, size))
        self._in_flight_bytes += size

    def committed(self, writer_id: bytes, seq: int) -> bool:
        """The next hop has committed up to `seq`; True if that is news."""
        is_news = seq > self._committed.get(writer_id, 0)
        if is_news:
            self._committed[writer_id] = seq
            self._next[writer_id] = max(self._next.get(writer_id, 1), seq + 1)
        # Without news too: a request may hold nothing but what is committed already.
        while self._requests and self._is_done(self._requests[0]):
            self._in_flight_bytes -= self._requests.popleft().size
        return is_news

    def committed_seq(self, writer_id: bytes, default: int) -> int:
        """The highest seq that this connection knows to be committed; `default` for a writer it has not seen."""
        return self._committed.get(writer_id, default)

    def gap(self, writer_id: bytes, expected: int) -> bool:
        """The next hop expects an earlier seq than it was sent: True if the log must be read again from its start."""
        current = self._next.get(writer_id, 1)
        self._next[writer_id] = expected
        for request in self._requests:
            request.tops.pop(writer_id, None)
        while self._requests and self._is_done(self._requests[0]):
            self._in_flight_bytes -= self._requests.popleft().size
        return expected < current

    @property
    def in_flight(self) -> int:
        """Requests that are not committed yet."""
        return len(self._requests)

    def _is_done(self, request: _Request) -> bool:
        return all(self._committed.get(writer_id, 0) >= top for writer_id, top in request.tops.items())

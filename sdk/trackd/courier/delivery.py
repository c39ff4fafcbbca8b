"""What of a writer is on its way and what has arrived: a pure core, one per lane. Positions in, decisions out."""

from collections import deque
from dataclasses import dataclass, field, replace

from trackd.courier.tail import Item, Position


@dataclass(slots=True)
class Flight:
    """Sent and not yet durable at the next hop, in order."""

    window_bytes: int
    durable: int = 0
    received: int = 0
    committed: int = 0
    lost_records: int = 0
    """Declared lost, and durably so."""
    _sent: deque[Item] = field(default_factory=deque)
    _bytes: int = 0

    def has_room(self) -> bool:
        """Whether more may be sent before something comes back."""
        return self._bytes < self.window_bytes

    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._sent

    def add(self, item: Item) -> None:
        """This was handed to the connection.

        What the hub has is not lost though it is not here any more: a next hop that forgot a silent writer, or has a
        new log, asks for it. What was lost before it is counted.
        """
        if item.reason and item.next_seq <= self.committed + 1:
            item = replace(item, reason="")
        self._sent.append(item)
        self._bytes += len(item.data)

    def advance(self, received: int, durable: int, committed: int) -> Position | None:
        """Watermarks came in; the position up to which the spool may be freed, if that moved.

        What the hub has committed needs no durable copy on the way.
        """
        self.received = max(self.received, received, durable, committed)
        self.durable = max(self.durable, durable, committed)
        self.committed = max(self.committed, committed)
        freed = None
        while self._sent and self._sent[0].next_seq <= self.durable + 1:
            item = self._sent.popleft()
            self._bytes -= len(item.data)
            self.lost_records += item.count if item.reason else 0
            freed = item.after
        return freed

    def restart(self, expected: int) -> Position | None:
        """The next hop wants `expected` next: forget what is on its way; the best position to read from, if known.

        What it has and may still lose stays, without its data: only once that is durable can its place be freed.
        """
        position = None
        kept: deque[Item] = deque()
        for item in self._sent:
            if item.next_seq <= expected:
                kept.append(replace(item, data=b""))
                position = item.after
            elif item.first_seq <= expected:
                position = item.before
        self._sent = kept
        self._bytes = 0
        return position

"""Delivery against a model: a log with holes, a hub that forgets, a connection that breaks at any moment."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from trackd_daemon.upload.delivery import Delivery, Hole

W = (b"w" * 16, b"v" * 16)
LAST = 40


@dataclass
class Hub:
    """Takes what comes in order; answers gaps; remembers how often it stored each record."""

    next_seq: dict[bytes, int] = field(default_factory=lambda: dict.fromkeys(W, 1))
    stored: dict[tuple[bytes, int], int] = field(default_factory=dict)
    lost: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def take(self, writer: bytes, first: int, count: int, is_loss: bool) -> int | None:
        """The seq expected instead, if there is a gap."""
        expected = self.next_seq[writer]
        if first > expected:
            return expected
        for seq in range(max(first, expected), first + count):
            ledger = self.lost if is_loss else self.stored
            ledger[writer, seq] = ledger.get((writer, seq), 0) + 1
        self.next_seq[writer] = max(expected, first + count)
        return None


class Agent:
    """The log, the cursor and the delivery of one route, as `Route` drives them."""

    def __init__(self, log: list[tuple[bytes, int, int]], hub: Hub) -> None:
        self.log = log
        self.hub = hub
        self.delivery = Delivery(window_requests=3, window_bytes=10_000)
        self.cursor = 0
        self.wire: list[list[tuple[bytes, int, int, bool]]] = []
        self.connect()

    def connect(self) -> None:
        self.wire.clear()
        self.cursor = 0
        self.delivery.connected(dict(self.hub.next_seq))

    def send(self, batches: int) -> None:
        if not self.delivery.has_room():
            return
        request: list[tuple[bytes, int, int, bool]] = []
        for writer, first, count in self.log[self.cursor : self.cursor + batches]:
            is_wanted, hole = self.delivery.admit(writer, first, count, 1)
            self._declare(request, writer, hole)
            if is_wanted:
                request.append((writer, first, count, False))
        self.cursor += batches
        if self.cursor >= len(self.log):
            for writer in W:
                self._declare(request, writer, self.delivery.missing_tail(writer, LAST, 1))
        if request:
            self.delivery.sent({w: first + count - 1 for w, first, count, _ in request}, 1)
            self.wire.append(request)

    def _declare(self, request: list[tuple[bytes, int, int, bool]], writer: bytes, hole: Hole | None) -> None:
        if hole is not None:
            request.append((writer, hole.first_seq, hole.records, True))

    def deliver(self, *, is_ack_lost: bool) -> None:
        """The hub gets the oldest request; its answer may be lost."""
        if not self.wire:
            return
        gaps = {}
        touched = set()
        for writer, first, count, is_loss in self.wire.pop(0):
            touched.add(writer)
            if (expected := self.hub.take(writer, first, count, is_loss)) is not None:
                gaps[writer] = expected
        if is_ack_lost:
            return
        for writer in touched:
            self.delivery.committed(writer, self.hub.next_seq[writer] - 1)
        for writer, expected in gaps.items():
            if self.delivery.gap(writer, expected):
                self.cursor = 0


def batches() -> st.SearchStrategy[list[tuple[bytes, int, int]]]:
    """Both writers' streams up to LAST, cut into batches, interleaved; some batches are missing from the log."""

    def build(draw: st.DrawFn) -> list[tuple[bytes, int, int]]:
        streams = []
        for writer in W:
            cuts = sorted(draw(st.sets(st.integers(2, LAST), max_size=8)) | {1, LAST + 1})
            streams.append([(writer, a, b - a) for a, b in pairwise(cuts)])
        log: list[tuple[bytes, int, int]] = []
        while any(streams):
            stream = draw(st.sampled_from([s for s in streams if s]))
            batch = stream.pop(0)
            if draw(st.integers(0, 9)) > 0:
                log.append(batch)
        return log

    return st.composite(build)()  # type: ignore[arg-type]


STEPS = st.lists(
    st.sampled_from(["send", "send3", "deliver", "deliver", "ack lost", "break", "hub restored"]), max_size=80
)


@settings(max_examples=400, deadline=None)
@given(batches(), STEPS)
def test_everything_arrives_once_or_is_declared_lost_exactly(
    log: list[tuple[bytes, int, int]], steps: list[str]
) -> None:
    hub = Hub()
    agent = Agent(log, hub)
    held = {(writer, seq) for writer, first, count in log for seq in range(first, first + count)}
    was_restored = False
    for step in steps:
        if step.startswith("send"):
            agent.send(3 if step == "send3" else 1)
        elif step == "break":
            agent.connect()
        elif step == "hub restored" and not was_restored:
            was_restored = True
            # An older state of the hub, consistent in itself: everything from some seq on is forgotten.
            for writer in W:
                keep = hub.next_seq[writer] // 2 + 1
                hub.next_seq[writer] = min(hub.next_seq[writer], keep)
                for ledger in (hub.stored, hub.lost):
                    for key in [k for k in ledger if k[0] == writer and k[1] >= hub.next_seq[writer]]:
                        del ledger[key]
            agent.connect()
        else:
            agent.deliver(is_ack_lost=step == "ack lost")
    agent.connect()
    for _ in range(3 * len(log) + 50):
        agent.send(2)
        agent.deliver(is_ack_lost=False)
    everything = {(writer, seq) for writer in W for seq in range(1, LAST + 1)}
    assert set(hub.stored) == held
    assert set(hub.lost) == everything - held
    assert set(hub.stored.values()) <= {1}
    assert set(hub.lost.values()) <= {1}


def test_the_window_bounds_what_is_under_way() -> None:
    delivery = Delivery(window_requests=2, window_bytes=100)
    delivery.connected({})
    delivery.sent({W[0]: 10}, 10)
    assert delivery.has_room()
    delivery.sent({W[0]: 20}, 90)
    assert not delivery.has_room()
    delivery.committed(W[0], 10)
    assert (delivery.in_flight, delivery.has_room()) == (1, True)
    delivery.committed(W[0], 20)
    assert delivery.in_flight == 0


def test_a_hub_that_knows_more_is_not_sent_it_again() -> None:
    delivery = Delivery()
    delivery.connected({})
    assert delivery.admit(W[0], 1, 10, 1) == (True, None)
    assert not delivery.gap(W[0], 51), "nothing to rewind"
    assert delivery.admit(W[0], 11, 10, 1) == (False, None)
    assert delivery.admit(W[0], 41, 20, 1) == (True, None)

"""The courier and the agent of one machine, driven a step at a time."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from trackd.courier.sender import Sender
from trackd.courier.session import ServedSession
from trackd_daemon.ingest import access, agent, marks
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_daemon.upload.delivery import Hole
from trackd_daemon.upload.outbox import Outbox
from trackd_daemon.wal import reader, recovery
from trackd_daemon.wal.backlog import Backlog
from trackd_daemon.wal.quota import Quota
from trackd_daemon.wal.state import Position
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import spool, version
from trackd_proto.v1 import ingest_pb2

from . import checks
from .clock import CLOCK
from .disk import SimDisk
from .trainers import SimOwner

SEGMENT_BYTES = 2048
ROUTE = "embedded"


class Agent:
    """The agent between two crashes: the real ledger, log, outbox and reader, without their threads and loops."""

    def __init__(self, directory: Path, disk: SimDisk, durable: dict[bytes, int], quota_bytes: int) -> None:
        """`durable`: the highest seq ever called durable, by writer; kept over crashes."""
        recovered = recovery.recover(directory, CLOCK.time_ns() // 1000)
        self.ledger = marks.Ledger()
        for found in recovered.state.writers.values():
            owner = (found.route, found.project, found.run_id)
            self.ledger.restore(found.writer_id, found.received, found.acked, owner)
        self.sessions = Sessions()
        quota = Quota(quota_bytes, 1)
        self.log = LogWriter(directory, recovered, quota=quota, segment_bytes=SEGMENT_BYTES, disk=disk)
        greeter = access.Greeter(b"c" * 32, 1, ingest_pb2.ACK_DURABLE)
        self.ingest = agent.AgentIngest(greeter, self.ledger, self, self.sessions)
        self.outbox = Outbox(ROUTE, self.ledger, lambda: self.ingest.overflow(ROUTE))
        self._loss, self.outbox._loss = self.outbox._loss, self._checked_loss  # type: ignore[method-assign]
        self.source = reader.RouteReader(directory, ROUTE, lambda: self.log.segments)
        self._backlog = Backlog()
        self._durable = durable
        self.durable_end = self.log.start()
        for writer_id, known in self.ledger.writers.items():
            durable[writer_id] = max(known.durable, durable.get(writer_id, 0))

    def append(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """As Wal.append."""
        self._backlog.append(batches)

    def write(self, most_bytes: int) -> None:
        """One append of the log: some of what waits, and all acks."""
        is_full = self._backlog.has_batches and self.log.is_full()
        batches, acks = self._backlog.take(most_bytes, is_full=is_full)
        try:
            self.log.write(batches, acks)
        except OSError as error:
            self._backlog.give_back(batches, acks)
            self.log.back_off(error)
        self._tell()

    def end(self) -> None:
        """As Wal.close: everything handed in is written and synced, and the log sealed, if the disk lets it."""
        for _ in range(20):
            if not self._backlog.has_batches or self.log.full_reason:
                break
            self.write(1 << 20)
        self.sync()
        with suppress(OSError):
            self.log.end()

    def sync(self) -> None:
        """One sync of the log."""
        if self.log.is_dirty:
            try:
                self.log.sync()
            except OSError as error:
                self.log.back_off(error)
            self._tell()

    def _tell(self) -> None:
        progress = self.log.take_progress()
        self.ingest.log_takes(nothing=bool(progress.full_reason), stuck=progress.stuck)
        self.sessions.changed(self.ledger.advance(progress.received, progress.durable, {}))
        progress.taken_bytes += self._backlog.take_dropped()
        if progress.taken_bytes:
            self.ingest.taken(progress.taken_bytes)
        if progress.durable_end is not None:
            self.durable_end = progress.durable_end
        for writer_id, seq in progress.durable.items():
            self._durable[writer_id] = max(seq, self._durable.get(writer_id, 0))

    def committed(self, news: dict[bytes, int]) -> None:
        """The hub has these."""
        self.sessions.changed(self.ledger.advance({}, {}, news))
        self._backlog.acknowledge(news, is_full=bool(self.log.full_reason))

    def request(self) -> list[ingest_pb2.Batch]:
        """What the route sends next, as Route._send_one does it."""
        if self.outbox.must_rewind:
            self.outbox.must_rewind = False
            self.source.rewind()
        if self.durable_end == Position(0, 0) or not self.outbox.has_room():
            return []
        owed = self.outbox.owed()
        batches, at_end = self.source.read(self.durable_end, 2000)
        return self.outbox.compose(batches, owed, at_end=at_end)

    def _checked_loss(self, writer_id: bytes, hole: Hole) -> ingest_pb2.Batch:
        checks.check_retained(self.log.directory, self.log.segments, writer_id, hole)
        return self._loss(writer_id, hole)

    def stop(self) -> None:
        """SIGKILL."""
        self.source.close()


class Courier:
    """The courier between two crashes: the real session, lanes and sender, without gRPC."""

    def __init__(self, directory: Path, owner_of: Callable[[bytes], SimOwner], is_over: Callable[[], bool]) -> None:
        session = ServedSession.claim(directory)
        assert session is not None
        self.session = session
        self.session.owner = SimOwner(is_over)  # type: ignore[assignment]
        self._owner_of = owner_of
        self.sender = Sender(None)  # type: ignore[arg-type]
        self.is_connected = False

    def look(self) -> None:
        """Find lanes, make chunks ready, remove what is safe."""
        for lane in self.session.find_lanes():
            lane.owner = self._owner_of(lane.writer_id)  # type: ignore[assignment]
            self.sender.add(lane)
        for lane in self.session.lanes.values():
            lane.prepare()
        self.session.finish_sent()
        for writer_id, lane in list(self.session.lanes.items()):
            if not lane.has_files and (
                lane.flight.committed >= lane.tail.position.next_seq - 1 or lane.owner.is_dead()
            ):
                self.sender.drop(lane)
                del self.session.lanes[writer_id]
                lane.close()

    def connected(self) -> None:
        """A new connection: every lane must ask where to go on."""
        self.is_connected = True
        for lane in self.session.lanes.values():
            lane.is_resumed = False

    def resume(self, agent_: Agent) -> None:
        """As Sender.pump."""
        self.sender._ask_again()
        for lane in self.session.lanes.values():
            if not lane.is_resumed:
                mark = agent_.ingest._mark(lane.writer_id)
                lane.advance(mark.received, mark.durable, mark.committed)
                lane.resume(max(mark.received, mark.committed) + 1)

    def collect(self) -> ingest_pb2.PushRequest | None:
        """What goes out next."""
        return self.sender._collect()

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(OSError, ValueError, BufferError):
            self.session.close(is_done=False)


@dataclass
class Link:
    """A stream in order that breaks as a whole."""

    requests: deque[Any] = field(default_factory=deque)
    replies: deque[Any] = field(default_factory=deque)
    session: Session | None = None


def make_session(directory: Path) -> None:
    """A session directory as the SDK makes it."""
    directory.mkdir(mode=0o700)
    info = spool.SessionInfo(format=version.SPOOL_FORMAT, home="", host_id="", pid=1, created_us=1, python="")
    (directory / "session.json").write_bytes(msgspec.json.encode(info))

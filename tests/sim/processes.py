"""The processes of one machine, driven a step at a time: trainers' lanes, the courier, the agent."""

import dis
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from trackd.courier.owner import Ending
from trackd.courier.sender import Sender
from trackd.courier.session import ServedSession
from trackd.lane import Lane
from trackd_daemon.ingest import access, agent, marks
from trackd_daemon.ingest.sessions import Session, Sessions
from trackd_daemon.upload.outbox import Outbox
from trackd_daemon.wal import reader, recovery
from trackd_daemon.wal.state import Position
from trackd_daemon.wal.writer import LogWriter
from trackd_proto import spool, version
from trackd_proto.v1 import ingest_pb2

from .disk import SimDisk

SEGMENT_BYTES = 2048
ROUTE = "embedded"


class Killed(BaseException):
    """SIGKILL between two bytecodes of the trainer."""


def stop_at(opcode: int, error: BaseException, call: Callable[[], None]) -> bool:
    """Raise `error` before the n-th bytecode that `call` executes in the SDK; whether it got that far.

    SIGKILL falls anywhere; an exception only where CPython looks for one: behind a call, at the begin of a function
    and where a loop jumps back.
    """
    count = 0
    before: dict[FrameType, str] = {}
    is_anywhere = isinstance(error, Killed)

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        if "/trackd/" not in frame.f_code.co_filename and not frame.f_code.co_filename.startswith("<mutant"):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
            previous = before.get(frame, "")
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if count >= opcode and (is_anywhere or previous.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))):
                sys.settrace(None)
                raise error
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count >= opcode


@dataclass
class Writer:
    """One lane, what its trainer was promised, and what it may have written without being told."""

    lane: Lane
    is_dead: bool = False
    is_closed: bool = False
    calls: int = 0
    promised: dict[int, int] = field(default_factory=dict)
    """Number of the call -> seq that was the last one when it returned."""
    may_lose: bool = False

    @property
    def writer_id(self) -> bytes:
        """Its id."""
        return self.lane.writer_id

    def log(self, rng: random.Random, fault: str) -> None:
        """One row; `fault` "", "interrupt" or "kill": at a random bytecode."""
        number, self.calls = self.calls, self.calls + 1
        row = {"i": number, "v": value_of(number), "pad": "p" * rng.choice((0, 10, 200))}
        if rng.random() < 0.1:
            row[f"k{number}"] = 1  # a new shape: the slow path
        try:
            if fault:
                error: BaseException = Killed() if fault == "kill" else KeyboardInterrupt()
                stop_at(rng.randrange(1, 400), error, lambda: self.lane.row(row))
            else:
                self.lane.row(row)
        except Killed:
            self.is_dead = True
            return
        except KeyboardInterrupt:
            return
        self.promised[number] = self.lane._state[3]


def value_of(number: int) -> float:
    """What call `number` logs: wrong bytes would show."""
    return number * 1.37


class SimOwner:
    """A process that lives as long as the simulation says."""

    def __init__(self, is_dead: Callable[[], bool]) -> None:
        self.pid = 1
        self.is_dead = is_dead

    def ending(self) -> Ending:
        """Killed."""
        return Ending("killed", None, "simulated")

    def close(self) -> None:
        """Nothing is held."""


class Agent:
    """The agent between two crashes: the real ledger, log, outbox and reader, without their threads and loops."""

    def __init__(self, directory: Path, disk: SimDisk, durable: dict[bytes, int]) -> None:
        """`durable`: the highest seq ever called durable, by writer; kept over crashes."""
        recovered = recovery.recover(directory, time.time_ns() // 1000)
        self.ledger = marks.Ledger()
        for found in recovered.state.writers.values():
            owner = (found.route, found.project, found.run_id)
            self.ledger.restore(found.writer_id, found.received, found.acked, owner)
        self.sessions = Sessions()
        self.log = LogWriter(directory, recovered, segment_bytes=SEGMENT_BYTES, disk=disk)
        greeter = access.Greeter(b"c" * 32, 1, ingest_pb2.ACK_DURABLE)
        self.ingest = agent.AgentIngest(greeter, self.ledger, self, self.sessions)
        self.outbox = Outbox(ROUTE, self.ledger, lambda: self.ingest.waiting(ROUTE) if self.log.full_reason else ())
        self.source = reader.RouteReader(directory, ROUTE, lambda: self.log.segments)
        self._queue: deque[ingest_pb2.Batch] = deque()
        self._acks: dict[bytes, int] = {}
        self._durable = durable
        self.durable_end = self.log.start()
        for writer_id, known in self.ledger.writers.items():
            durable[writer_id] = max(known.durable, durable.get(writer_id, 0))

    def append(self, batches: Sequence[ingest_pb2.Batch]) -> None:
        """As Wal.append."""
        self._queue.extend(batches)

    def write(self, most: int) -> None:
        """One append of the log: some of what waits, and all acks."""
        batches: list[ingest_pb2.Batch] = []
        if self._queue and not self.log.is_full():
            while self._queue and len(batches) < most:
                batches.append(self._queue.popleft())
        acks, self._acks = self._acks, {}
        try:
            self.log.write(batches, acks)
        except OSError as error:
            self._queue.extendleft(reversed(batches))
            self._acks = acks | self._acks
            self.log.back_off(error)
        self._tell()

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
        self.sessions.changed(self.ledger.advance(progress.received, progress.durable, {}))
        if progress.taken_bytes:
            self.ingest.taken(progress.taken_bytes)
        if progress.durable_end is not None:
            self.durable_end = progress.durable_end
        for writer_id, seq in progress.durable.items():
            self._durable[writer_id] = max(seq, self._durable.get(writer_id, 0))

    def committed(self, news: dict[bytes, int]) -> None:
        """The hub has these."""
        self.sessions.changed(self.ledger.advance({}, {}, news))
        for writer_id, seq in news.items():
            self._acks[writer_id] = max(seq, self._acks.get(writer_id, 0))

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

    def stop(self) -> None:
        """SIGKILL."""
        self.source.close()


class Courier:
    """The courier between two crashes: the real session, lanes and sender, without gRPC."""

    def __init__(self, directory: Path, owner_of: Callable[[bytes], SimOwner], is_over: Callable[[], bool]) -> None:
        session = ServedSession.claim(directory)
        assert session is not None
        self.session = session
        self.session.owner.close()
        self.session.owner = SimOwner(is_over)  # type: ignore[assignment]
        self._owner_of = owner_of
        self.sender = Sender(None)  # type: ignore[arg-type]
        self.is_connected = False

    def look(self) -> None:
        """Find lanes, make chunks ready, remove what is safe."""
        for lane in self.session.find_lanes():
            lane.owner.close()
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
        """As Sender._resume_new."""
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

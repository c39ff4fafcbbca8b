"""Counts what is not in the hub: spools, the log of a daemon that does not run, offline runs. Reads only."""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import msgspec
from google.protobuf.message import DecodeError
from trackd_proto import segment, spool
from trackd_proto.layout import Instance
from trackd_proto.v1 import ingest_pb2

from trackd_daemon.cli import verify
from trackd_daemon.cli.doctor import locks
from trackd_daemon.doctor import facts
from trackd_daemon.wal import frames
from trackd_daemon.wal.state import LogState

_MANY_RUNS: Final = 1_000


def see_backlog(where: Instance) -> facts.Backlog:
    """What only this disk has. The log is left to the daemon while one runs: it knows better."""
    lanes, unreadable = [], []
    for path in sorted(where.spool.glob("*/*.head")):
        try:
            lanes.append(_lane(path))
        except FileNotFoundError:
            continue  # its courier has just finished
        except (OSError, struct.error, spool.SpoolError) as error:
            unreadable.append(f"{path} ({error})")
    if not locks.see_lock(where).is_held:
        records, size = unsent_in_log(where.wal)
    else:
        records, size = None, 0
    offline = tuple(islice(_offline_runs(where.home), _MANY_RUNS))
    return facts.Backlog(tuple(lanes), tuple(unreadable), str(where.wal), records, size, offline)


# ---------------------------------------------------------------------------------------------- spools


def _lane(path: Path) -> facts.Lane:
    with path.open("rb") as file:
        words = struct.unpack("=24Q", file.read(24 * 8))
    if words[spool.MAGIC] != spool.MAGIC_WORD:
        raise spool.SpoolError("no spool head")
    last = max(words[spool.PUBLISHED], words[spool.ASSIGNED])
    durable = max(words[spool.DURABLE], words[spool.COMMITTED])
    courier = words[spool.COURIER_PID]
    is_foreign = words[spool.PID_NAMESPACE] not in (0, _namespace())
    # Numbers of another container's processes mean nothing here.
    has_courier = bool(courier) and (is_foreign or _exists(courier))
    return facts.Lane(str(path.parent), _owner(path.parent, words, is_foreign), has_courier, last, durable)


def _owner(session: Path, words: tuple[int, ...], is_foreign: bool) -> Literal["alive", "dead", "unknown"]:
    if is_foreign:
        offset = words[spool.ALIVE_OFFSET]
        is_locked = locks.is_byte_locked(session / "alive", offset) if offset else None
        return "unknown" if is_locked is None else "alive" if is_locked else "dead"
    pid, ticks = words[spool.PID], words[spool.START_TICKS]
    if not ticks:
        return "alive" if _exists(pid) else "dead"
    return "alive" if _start_ticks(pid) == ticks else "dead"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 if there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return 0 if fields[0] == b"Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


# ---------------------------------------------------------------------------------------------- the log


def unsent_in_log(directory: Path) -> tuple[int | None, int]:
    """(records that are not acked, bytes) of the log in a directory; None records where that cannot be told."""
    paths = sorted(directory.glob("*.wal"))
    size = sum(path.stat().st_size for path in paths)
    if not paths:
        return 0, 0
    # A segment begins with what all before it came to: mostly the last is enough.
    for first in reversed(range(len(paths))):
        state = LogState()
        if _fold(paths[first:], state):
            break
    else:
        if paths[0].stem.lstrip("0") != "1":
            return None, size
    return sum(writer.received - writer.acked for writer in state.pending()), size


def _fold(paths: list[Path], state: LogState) -> bool:
    """Whether the first of these segments begins with a checkpoint; what all of them say is in `state` then."""
    has_checkpoint = False
    for number, path in enumerate(paths):
        for place, frame in enumerate(_frames(path)):
            is_first = number == 0 and place == 0
            has_checkpoint = has_checkpoint or (is_first and frame.type == segment.CKPT)
            with suppress(DecodeError, msgspec.DecodeError):
                _apply(frame, number, state)
    return has_checkpoint


def _frames(path: Path) -> Iterator[segment.Frame]:
    with path.open("rb") as file:
        descriptor = file.fileno()
        found = segment.scan_with(lambda at, size: os.pread(descriptor, size, at), os.fstat(descriptor).st_size)
        yield from (frame for frame in found if isinstance(frame, segment.Frame))


def _apply(frame: segment.Frame, number: int, state: LogState) -> None:
    if frame.type in (segment.DATA, segment.LOSS):
        batch = ingest_pb2.Batch.FromString(frame.payload)
        writer = state.writer(batch.writer_id, batch.route, batch.project, batch.run_id)
        state.append(number, writer, batch.first_seq + batch.count - 1, 0)
    elif frame.type == segment.ACK:
        state.acknowledge(frames.decode_acks(frame.payload))
    elif frame.type == segment.CKPT:
        state.load_checkpoint(frames.decode_checkpoints(frame.payload), None)


# ---------------------------------------------------------------------------------------------- offline runs


def _offline_runs(home: Path) -> Iterator[facts.Offline]:
    seen: set[Path] = set()
    for root in verify.usual_roots(home):
        for run in sorted((root / verify.RUNS).glob("run-*")):
            files = sorted(run.glob("*.wal"))
            if files and run.resolve() not in seen:
                seen.add(run.resolve())
                with suppress(OSError):
                    yield facts.Offline(str(run), sum(file.stat().st_size for file in files), _noted(run))


def _noted(run: Path) -> int:
    """Records that its courier says were logged; 0 if it does not say."""
    try:
        writers = msgspec.json.decode((run / "logged.json").read_bytes())["writers"]
        return sum(int(note["last_seq"]) for note in writers.values())
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return 0

"""The courier's process: claims sessions, serves them until nothing is left, leaves.

python -c BOOT PATH SESSION_DIR     serve one session (and adopt orphans of the same user meanwhile)
python -m trackd.courier.main --adopt INSTANCE_DIR   send what dead processes left, then exit 0 if nothing is left
"""

import asyncio
import contextlib
import gc
import math
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from trackd_proto import layout, spool, version
from trackd_proto.compress import Compressor
from trackd_proto.local import guest, places

from trackd.courier.lanes import SpoolLane
from trackd.courier.offline import OfflineFile
from trackd.courier.pace import Pace
from trackd.courier.sender import Sender, print_for
from trackd.courier.session import ServedSession, is_owner_dead, is_served

_ORPHAN_SCAN_S: Final = 10.0
_STARTS_IN_S: Final = 2.0
_CLAIM_S: Final = 2.0
"""Who holds a session's lock without serving it, to look whether a courier does, is soon gone."""
_CLAIM_RETRY_S: Final = 0.02
_GIVE_UP_S: Final = 600.0
"""Without a trainer and without a daemon for this long the courier leaves; the next one adopts the spool."""
_MOST_UNCOMMITTED: Final = 32
"""Lanes of a session that have ended and whose process may still ask for the hub's answer, which may take days."""

_TERM_GRACE_S: Final = 25.0
"""After a SIGTERM, if the trainers are dead too: how long to try. SLURM and Kubernetes kill after 30 s."""
_AFTER_CRASH_S: Final = 1.0
_REASON: Final = 500
"""Characters of a reason that fit into a head beside the rest."""


class Courier:
    """Serves every session it could claim."""

    def __init__(self, where: layout.Instance, sessions: list[ServedSession], *, adopt_only: bool = False) -> None:
        """`adopt_only`: serves what dead processes left, and waits for nobody."""
        self._where = where
        self._sessions = sessions
        self._adopt_only = adopt_only
        self._sender = Sender(where)
        self._offline: dict[bytes, OfflineFile] = {}
        self._compressor = Compressor()
        self._pace = Pace()
        self._orphans_at = 0.0
        self._progress = (0, time.monotonic())
        self._ends_at = math.inf

    def hurry(self) -> None:
        """Somebody ends everything here, as `scancel` does: what the trainers left is sent, and then no waiting."""
        self._ends_at = min(self._ends_at, time.monotonic() + _TERM_GRACE_S)

    async def serve(self) -> bool:
        """Until every session is done (True) or there is no hope for now (False)."""
        while self._sessions or self._adopt_orphans():
            sent = await self._round()
            if self._is_hopeless():
                break
            lanes = [lane for session in self._sessions for lane in session.lanes.values()]
            is_awaited = any(lane.has_files and lane.is_closed() for lane in lanes)
            await asyncio.sleep(self._pace.rest_s(sent, time.monotonic(), is_awaited=is_awaited))
        is_done = not self._sessions
        await self._sender.close()
        self.let_go()
        return is_done

    def let_go(self) -> None:
        """Of every session, so that the next courier can claim it."""
        for file in self._offline.values():
            file.close()
        for session in self._sessions:
            session.close(is_done=False)

    async def _round(self) -> int:
        """Bytes of records that were sent or written."""
        sent = 0
        if time.monotonic() >= self._orphans_at:
            self._adopt_orphans()
        for session in list(self._sessions):
            session.end_dead()
            for lane in session.find_lanes():
                self._start(lane)
            for lane in session.lanes.values():
                lane.prepare()
        if self._sender.is_outdated:
            self._go_offline()
        if any(not lane.is_offline for s in self._sessions for lane in s.lanes.values()):
            sent = await self._sender.pump()
            await self._sender.refresh_tickets()
        for file in self._offline.values():
            sent += file.pump()
        for session in list(self._sessions):
            session.finish_sent()
            self._forget_finished(session)
            if session.is_done():
                self._sessions.remove(session)
                session.close(is_done=True)
        return sent

    def _start(self, lane: SpoolLane) -> None:
        self._pace.begin(time.monotonic())
        if lane.is_offline:
            self._offline[lane.writer_id] = OfflineFile(lane, self._compressor)
        else:
            self._sender.add(lane)

    def _go_offline(self) -> None:
        """Nobody here takes the records of our version: what is left of the runs goes into their directories."""
        for lane in [lane for session in self._sessions for lane in session.lanes.values() if lane.has_files]:
            if lane.is_offline:
                continue
            lane.is_offline = True
            self._sender.drop(lane)
            self._start(lane)
            text = (
                f"run {lane.target.name or lane.target.run_id} goes on offline: this trackd ({version.VERSION}) is too "
                f"old for what is in {self._where.home} ({self._sender.trouble[:_REASON]}). To send what "
                f"it logs, update trackd, then: trackd flush {lane.target.run_dir}"
            )
            lane.set_links(spool.Links(message=text, is_offline=True))
            if lane.target.announce:
                print_for(lane, f"trackd: warning: {text}\n")

    def _forget_finished(self, session: ServedSession) -> None:
        """Let go of the lanes that have ended, except the newest that the hub does not have yet."""
        kept = 0
        for lane in reversed([lane for lane in session.lanes.values() if not lane.has_files]):
            if kept < _MOST_UNCOMMITTED and _is_awaited(lane):
                kept += 1
                continue
            self._sender.drop(lane)
            if file := self._offline.pop(lane.writer_id, None):
                file.close()
            del session.lanes[lane.writer_id]
            lane.close()

    def _adopt_orphans(self) -> bool:
        """Sessions of this user that nobody serves: their courier was killed, or the machine went down. Were there?"""
        self._orphans_at = time.monotonic() + _ORPHAN_SCAN_S
        before = len(self._sessions)
        served = {session.directory.name for session in self._sessions}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for directory in sorted(self._where.spool.iterdir()):
                if directory.name in served or not _is_orphan(directory, must_be_dead=self._adopt_only):
                    continue
                if session := ServedSession.claim(directory, must_be_dead=self._adopt_only):
                    self._sessions.append(session)
        return len(self._sessions) > before

    def _has_trainer(self) -> bool:
        """Whether somebody lives who may log more: the process of a session, or a child that it forked."""
        return any(
            not session.owner.is_dead() or any(lane.has_files and not lane.is_over() for lane in session.lanes.values())
            for session in self._sessions
        )

    def _is_hopeless(self) -> bool:
        if not self._adopt_only and self._has_trainer():
            return False
        if time.monotonic() > self._ends_at:
            return True
        sent = sum(lane.flight.durable for s in self._sessions for lane in s.lanes.values())
        if sent != self._progress[0]:
            self._progress = (sent, time.monotonic())
        return time.monotonic() - self._progress[1] > (30.0 if self._adopt_only else _GIVE_UP_S)


def _is_awaited(lane: SpoolLane) -> bool:
    """Whether the process of a lane that has ended may still learn something from its head."""
    if lane.is_offline or lane.owner.is_dead():
        return False
    if lane.flight.committed < lane.tail.position.next_seq - 1:
        return True
    # A hub that is still starting commits before it can say where the run is to be seen.
    return lane.target.role == "main" and lane.word(spool.LINKS) == 0


def _is_orphan(directory: Path, *, must_be_dead: bool = False) -> bool:
    """Whether it is old enough not to be one whose own courier is just starting, or nobody is left to start one.

    It is old also if it is ahead of us: the clock was set back since. `must_be_dead`: its age does not count.
    """
    try:
        is_old = not must_be_dead and abs(time.time() - directory.stat().st_ctime) > _STARTS_IN_S
        return is_old or is_owner_dead(directory)
    except (OSError, ValueError, RecursionError):
        return False


def _be_a_good_guest() -> None:
    """No descriptor of the trainer, deaf to its terminal, last to get the CPU.

    No higher oom_score_adj than the trainer's: small as it is it would gain the trainer nothing by dying first, and
    nobody would be left to send the last rows and to say what happened.
    """
    os.closerange(3, 4096)
    guest.allow_many_files()  # up to three for each lane
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until `hurry` can be called
    os.umask(0o077)
    with contextlib.suppress(OSError):
        os.chdir("/")
    guest.step_back()


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    if arguments[:1] == ["--adopt"]:
        where = _instance_of(Path(arguments[1]))
        sys.exit(0 if asyncio.run(Courier(where, [], adopt_only=True).serve()) else 1)
    directory = Path(arguments[0])
    _be_a_good_guest()
    where = _instance_of(directory.parent.parent)
    session = _claim(directory)
    if session is None:
        return  # another courier serves it
    with contextlib.suppress(OSError):  # something else has that name: the records go first, without a log
        os.dup2(places.open_log(where.directory / "courier.log"), 2)
    gc.freeze()
    while session is not None:
        courier = Courier(where, [session])
        try:
            asyncio.run(_serve(courier))
            return
        except Exception:  # a bug of ours: what is in the spool is still there, so begin again from it
            traceback.print_exc()
            courier.let_go()
            time.sleep(_AFTER_CRASH_S)
            session = _claim(directory)


def _claim(directory: Path) -> ServedSession | None:
    """A session for its own courier; None if another one serves it. Nobody would start one instead of us."""
    until = time.monotonic() + _CLAIM_S
    while True:
        session = ServedSession.claim(directory)
        if session or is_served(directory) or not directory.is_dir() or time.monotonic() > until:
            return session
        time.sleep(_CLAIM_RETRY_S)


async def _serve(courier: Courier) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, courier.hurry)
    await courier.serve()


def _instance_of(directory: Path) -> layout.Instance:
    return layout.Instance(directory.parent, directory.name)


if __name__ == "__main__":
    main(sys.argv[1:])

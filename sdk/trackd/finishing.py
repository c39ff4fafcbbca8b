"""The end of runs: last records, a short bounded wait, one line of summary."""

import importlib.util
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from trackd import current, ephemeral, messages, signals
from trackd.ending import Ending

if TYPE_CHECKING:
    from trackd.run import Run

_PATIENCE_S: Final = 1.0
"""Longest wait without an answer, for all runs together; what remains of 1.5 s is for the process to exit."""
_GLANCE_S: Final = 0.15
"""After everything is durable: how long the hub gets, only so that the summary can say that it has everything."""
_LINKS_S: Final = 3.0
"""With a wait granted: longest wait for the links once everything is committed."""
_WINDOW_S: Final = 1.0
"""In an ephemeral place: longest wait between two signs of life of a hub."""
_INSTALL_HUB: Final = "To see them: pip install 'trackd[hub]', then trackd open"


def finish(runs: Sequence["Run"], ending: Ending, wait_s: float | None = None) -> None:
    """End `runs`: write what is left of each, then wait for all of them together, then say how it went."""
    ended = [run for run in runs if run.close(ending)]
    if not current.runs():
        signals.release()
    patience = _Patience(_PATIENCE_S if wait_s is None else wait_s)
    for run in ended:
        if not run.disabled and run.is_owner:
            _wait(run, patience, is_granted=wait_s is not None)
            if run.pid == os.getpid():
                report(run, ending)


class _Patience:
    """The waits of one finish(): however many runs it ends, together they take no longer than for one."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self._glance_until = 0.0
        self._silent: set[str] = set()

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.until - time.monotonic())

    def glance(self) -> float:
        """Seconds left for a look at whether a hub has everything; they begin with the first look."""
        self._glance_until = self._glance_until or time.monotonic() + _GLANCE_S
        return max(0.0, self._glance_until - time.monotonic())

    def wait_while_moving(self, run: "Run") -> None:
        """What is durable here dies with the container: stay while the hub keeps taking records."""
        until = time.monotonic() + run._settings.finish_timeout
        before, route = -1, run._identity.route
        while (now := run._lane.watermarks().committed) > before and time.monotonic() < until:
            before = now
            window_s = 0.0 if route in self._silent else min(_WINDOW_S, max(0.0, until - time.monotonic()))
            if run._lane.wait("committed", window_s):
                return
        self._silent.add(route)


def _wait(run: "Run", patience: _Patience, *, is_granted: bool) -> None:
    lane, is_online = run._lane, not run.offline
    if is_granted:
        if lane.wait("committed" if is_online else "durable", patience.left()) and is_online:
            _wait_for_links(run, min(patience.until, time.monotonic() + _LINKS_S))
        return
    if not lane.wait("durable", patience.left()) or not is_online:
        return
    if run._identity.route != "embedded" and ephemeral.is_ephemeral(run._identity.home):
        patience.wait_while_moving(run)
    elif _can_commit(run):
        lane.wait("committed", patience.glance())


def _wait_for_links(run: "Run", until: float) -> None:
    """A hub that has just been started commits a moment before it knows its own address."""
    while run._lane.links() is None and time.monotonic() < until:
        time.sleep(0.01)


def _can_commit(run: "Run") -> bool:
    return run._identity.route != "embedded" or has_hub()


def has_hub() -> bool:
    """Whether this installation has the hub extra."""
    return importlib.util.find_spec("duckdb") is not None


def report(run: "Run", ending: Ending) -> None:
    """Say how the run ended and where its data is."""
    marks = run._lane.watermarks()
    what = f"run {run.name} ({run.path}) {ending.state}"
    if run._lane.is_in_memory:
        messages.tell(
            f"warning: {what}; none of its {marks.assigned:,} records could be kept: there was no space in "
            f"{run._identity.home} from its begin to its end"
        )
        return
    if run.offline:
        messages.say(f"{what}; its {marks.assigned:,} records are kept in {run.run_dir}")
        messages.say(f"to send it: trackd flush {run.run_dir}")
    elif (links := run._lane.links()) is not None and links.is_offline:
        messages.tell(f"warning: {links.message}")
    elif marks.committed >= marks.assigned:
        messages.say(f"{what}; all of its {marks.assigned:,} records are in the hub")
    elif marks.durable >= marks.assigned:
        messages.say(f"{what}; {_pending(run, marks.assigned, marks.committed)}")
    else:
        left = marks.assigned - marks.durable
        then = "They are sent by themselves; to send them now: trackd flush --all"
        messages.say(
            f"{what}; {left:,} of {marks.assigned:,} records wait in {run._identity.home} for the daemon, which has "
            f"not answered yet. {then if _can_commit(run) else _INSTALL_HUB}"
        )
    if marks.lost:
        messages.tell(
            f"warning: {marks.lost:,} records of run {run.path} were lost: there was no space to keep them in "
            f"{run._identity.home}. Free some there, or raise spool_quota_bytes; which: trackd verify {run.path}"
        )
    if not run.offline:
        _report_links(run)


def _pending(run: "Run", assigned: int, committed: int) -> str:
    if not _can_commit(run):
        return f"all of its {assigned:,} records are safe in {run._identity.home}. {_INSTALL_HUB}"
    return (
        f"{assigned - committed:,} of {assigned:,} records, safe in {run._identity.home}, are on their way to the hub "
        "by themselves; to send them now: trackd flush --all"
    )


def _report_links(run: "Run") -> None:
    links = run._lane.links()
    if links is None:
        if _can_commit(run):
            messages.say(f"to see it: trackd open {run.path}")
    elif links.run_url:
        messages.tell(*messages.link_lines(links.run_url, links.project_url, links.ticket))
    elif links.message and not links.is_offline:
        messages.say(links.message)

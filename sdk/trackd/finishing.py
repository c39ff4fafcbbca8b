"""The end of runs: last records, a short bounded wait, one line of summary."""

import importlib.util
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
"""In an ephemeral place: longest wait between two signs of life of the hub."""
_INSTALL_HUB: Final = "To see them: pip install 'trackd[hub]', then trackd open"


def finish(runs: Sequence["Run"], ending: Ending, wait_s: float | None = None) -> None:
    """End `runs`: write what is left of each, then wait for all of them together, then say how it went."""
    ended = [run for run in runs if run.close(ending)]
    if not current.runs():
        signals.release()
    deadline = time.monotonic() + _PATIENCE_S
    for run in ended:
        if not run.disabled and run.is_owner:
            _wait(run, deadline, wait_s)
            report(run, ending)


def _wait(run: "Run", deadline: float, wait_s: float | None) -> None:
    lane, is_online = run._lane, not run.offline
    if wait_s is not None:
        until = time.monotonic() + wait_s
        if lane.wait("committed" if is_online else "durable", wait_s) and is_online:
            _wait_for_links(run, min(until, time.monotonic() + _LINKS_S))
        return
    if not lane.wait("durable", max(0.0, deadline - time.monotonic())) or not is_online:
        return
    if run._identity.route != "embedded" and ephemeral.is_ephemeral(run._identity.home):
        _wait_while_moving(run)
    elif _can_commit(run):
        lane.wait("committed", _GLANCE_S)


def _wait_for_links(run: "Run", until: float) -> None:
    """A hub that has just been started commits a moment before it knows its own address."""
    while run._lane.links() is None and time.monotonic() < until:
        time.sleep(0.01)


def _wait_while_moving(run: "Run") -> None:
    """What is durable here dies with the container: stay while the hub keeps taking records."""
    until = time.monotonic() + run._settings.finish_timeout
    before = -1
    while (now := run._lane.watermarks().committed) > before and time.monotonic() < until:
        before = now
        if run._lane.wait("committed", min(_WINDOW_S, until - time.monotonic())):
            return


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

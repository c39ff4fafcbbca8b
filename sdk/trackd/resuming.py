"""`init(resume=...)`: which run this is, and what of it is there already."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from trackd_proto.asking import Answer
from trackd_proto.records import restore
from trackd_proto.settings import Settings

from trackd import messages, naming
from trackd.branching import Moment
from trackd.errors import ResumeError, ResumeUnknownError
from trackd.session import package_paths
from trackd.unfinished import Unfinished

ASK_S: Final = 10.0
"""Longest wait for the hub."""

_BOOT: Final = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from trackd_proto.local.ask import main
main(sys.argv[2:])
"""
_NO_ID: Final = 'init(resume="must") needs the id of the run: init(id=..., resume="must") or TRACKD_RUN_ID'


class Plan(msgspec.Struct, frozen=True):
    """What `resume` means for the run that begins."""

    run_id: str
    is_resumed: bool = False
    """As far as it is known without the hub; with it, for sure."""
    facts: dict[str, Any] = {}
    """The run as the hub has it, where the hub was asked; else {}."""
    unfinished: Unfinished | None = None
    moment: Moment | None = None

    @property
    def starting_step(self) -> int:
        """The step after the last one that the hub has; 0 if it was not asked. Behind a given moment: the one after."""
        if self.moment is not None:
            return self.moment.step + 1
        last = self.facts.get("last_step")
        return 0 if last is None else int(last) + 1


def plan(settings: Settings, project: str, run_id: str, home: Path, directory: Path) -> Plan:
    """Settle which run begins; `run_id` is "" if none was given. Waits for the hub only where it must be asked.

    Raises:
        ValueError: "must" without an id.
        ResumeError: "must" and there is no such run, or "never" and there is one.
        ResumeUnknownError: the hub did not tell in time.
    """
    choice = settings.resume
    if choice == "must" and not run_id:
        raise ValueError(_NO_ID)
    if choice == "auto":
        unfinished = Unfinished(home, project, directory)
        taken, is_resumed = (run_id, False) if run_id else unfinished.take()
        unfinished.begin(taken)
        return Plan(taken, is_resumed, unfinished=unfinished)
    if choice not in ("must", "never") or not run_id or settings.mode == "offline":
        return Plan(run_id or naming.new_id())
    answer = ask(settings, home, project, run_id)
    path = f"{project}/{run_id}"
    if answer.status == "unknown":
        raise ResumeUnknownError(
            f'init(resume="{choice}"): whether the run {path} exists could not be found out within {ASK_S:.0f} s: '
            f'{answer.why}. Then try again; or use resume="allow", which asks nobody, or mode="offline", which leaves '
            "the check to trackd flush"
        )
    if choice == "must" and answer.status == "missing":
        raise ResumeError(
            f'init(resume="must"): there is no run {path} at the hub. Correct the id or the project; or use '
            'resume="allow", which begins the run if it is not there'
        )
    if choice == "never" and answer.status == "found":
        raise ResumeError(
            f'init(resume="never"): there is a run {path} already. Give another id or none; or use resume="allow", '
            "which goes on with it"
        )
    if answer.status == "missing":
        return Plan(run_id)
    return Plan(run_id, True, restore(msgspec.msgpack.decode(answer.run, strict=False)))


def branch(settings: Settings, project: str, run_id: str, moment: Moment, home: Path) -> Plan:
    """What begins behind `moment`; `run_id` is the fork's own id, "" if none was given. Asks as `plan` does.

    Raises:
        ResumeError: there is no run to begin behind, or there is one that has the fork's id.
        ResumeUnknownError: the hub did not tell in time.
    """
    own = (run_id or naming.new_id()) if moment.is_fork else moment.run_id
    if settings.mode == "offline":
        return Plan(own, not moment.is_fork, moment=moment)
    until = time.monotonic() + ASK_S
    answer = _told(ask(settings, home, project, moment.run_id), moment, project, moment.run_id)
    if answer.status == "missing":
        raise ResumeError(
            f"init({moment.argument}=...): there is no run {project}/{moment.run_id} at the hub. Correct the id or the "
            "project; runs that you have: trackd ls"
        )
    if moment.is_fork and run_id:
        left_s = max(until - time.monotonic(), 0.1)
        if _told(ask(settings, home, project, run_id, left_s), moment, project, run_id).status == "found":
            raise ResumeError(
                f"init(fork_from=...): there is a run {project}/{run_id} already. Give another id or none; or go on "
                'with it with resume="allow"'
            )
    facts = restore(msgspec.msgpack.decode(answer.run, strict=False))
    last = facts.get("last_step")
    if last is None or int(last) < moment.step:
        messages.warn_once(
            f"init({moment.argument}=...): the hub has {project}/{moment.run_id} up to step {last} so far, not up to "
            f"{moment.step}: what is still to come is shown when it is there"
        )
    if moment.is_fork:  # a new run: what the other was called and had measured is not its own
        facts = {"config": facts["config"], "summary": {}}
    return Plan(own, not moment.is_fork, facts, moment=moment)


def _told(answer: Answer, moment: Moment, project: str, run_id: str) -> Answer:
    if answer.status == "unknown":
        raise ResumeUnknownError(
            f"init({moment.argument}=...): whether the run {project}/{run_id} exists could not be found out within "
            f'{ASK_S:.0f} s: {answer.why}. Then try again; or use mode="offline", which leaves the check to '
            "trackd flush"
        )
    return answer


def ask(settings: Settings, home: Path, project: str, run_id: str, timeout_s: float = ASK_S) -> Answer:
    """What the hub has of a run. A process of its own asks: no gRPC in here, and no wait beyond `timeout_s`."""
    if settings.upstream and not settings.upstream_cookie:
        return Answer("unknown", f"the hub {settings.upstream} can only be asked with the setting upstream_cookie")
    import subprocess  # noqa: PLC0415 - 5 ms that only who asks pays for

    command = [sys.executable, "-I", "-c", _BOOT, package_paths(), str(home), settings.upstream_cookie, project, run_id]
    try:
        with _without_sigchld():
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout_s,
                check=False,
            )  # fmt: skip
        return msgspec.msgpack.decode(done.stdout, type=Answer)
    except subprocess.TimeoutExpired:
        return Answer("unknown", "the hub gave no answer: look at `trackd status`")
    except (OSError, msgspec.MsgspecError) as error:
        return Answer("unknown", f"the process that asks the hub failed ({error}): look at `trackd doctor`")


@contextlib.contextmanager
def _without_sigchld() -> Any:
    """The user's handler of SIGCHLD hears nothing of our child, and of others that end meanwhile afterwards."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except (ValueError, TypeError):  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
        if callable(before) and hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    signal.raise_signal(signal.SIGCHLD)

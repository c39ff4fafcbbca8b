"""Polite signals: schedulers and closing terminals send them, and Python dies of them without a word."""

import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Final

from trackd_proto import records

from trackd import current
from trackd.ending import Ending

_ALWAYS: Final = (signal.SIGTERM, signal.SIGHUP)
_IN_A_JOB: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send ahead of a preemption or time limit; elsewhere they are the program's own."""
_SCHEDULERS: Final = {
    "SLURM_JOB_ID": "SLURM", "PBS_JOBID": "PBS", "LSB_JOBID": "LSF", "FLUX_JOB_ID": "Flux", "OAR_JOB_ID": "OAR",
    "COBALT_JOBID": "Cobalt", "AWS_BATCH_JOB_ID": "AWS Batch",
}  # fmt: skip


def watch() -> None:
    """Only where nobody else handles them, and only from the main thread (elsewhere Python refuses)."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (*_ALWAYS, *(_IN_A_JOB if scheduler_job() else ())):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_signal)


def release() -> None:
    """Give the signals back when no run is open, as far as they are still ours."""
    if threading.current_thread() is threading.main_thread():
        for number in (*_ALWAYS, *_IN_A_JOB):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)


def scheduler_job(environ: Mapping[str, str] = os.environ) -> str:
    """ "SLURM job 123" where a batch scheduler started this process, else ""."""
    if environ.get("SGE_ROOT") and environ.get("JOB_ID"):
        return f"Grid Engine job {environ['JOB_ID']}"
    for variable, name in _SCHEDULERS.items():
        if environ.get(variable):
            return f"{name} job {environ[variable]}"
    return ""


def ending_of(number: int, job: str) -> Ending:
    """How a run ends that this signal ends, inside a scheduler's job (`scheduler_job()`) or outside of any ("")."""
    name = signal.Signals(number).name
    if job and number != signal.SIGHUP:
        return Ending("preempted", 128 + number, f"{name} in {job}: preemption, time limit or cancellation")
    return Ending("killed", 128 + number, name)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    """One record per run, then die as if we had not been here. Forked children only die.

    The record goes to the second lane if the signal came inside `log()`. PID 1 of a container survives its own
    signal, as it would without us; the EXIT record of its real end, which comes later, counts.
    """
    with contextlib.suppress(Exception):
        ending = ending_of(number, scheduler_job())
        for run in current.runs():
            if run.is_owner and not run.disabled:
                run._lane.append(records.EXIT, ending.body())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

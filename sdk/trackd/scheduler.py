"""The id that a batch scheduler gives to a job and keeps when it runs it again. Pure."""

from collections.abc import Mapping
from typing import Final

_JOBS: Final = (
    ("slurm", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"),
    ("pbs", "PBS_JOBID", "", "", ""),
    ("lsf", "LSB_JOBID", "LSB_JOBID", "LSB_JOBINDEX", ""),
)
_RESTARTS: Final = ("SLURM_RESTART_COUNT", "PBS_RUNCOUNT")


def job_name(environ: Mapping[str, str]) -> str:
    """Such as ``slurm-812`` or, for task 3 of an array and rank 1 of its processes, ``slurm-812_3-r1``; "" for none.

    Letters, digits, ``.``, ``_`` and ``-`` only, so that it may be part of a run's id.
    """
    for name, job, array, task, rank in _JOBS:
        number = environ.get(job, "")
        if not number:
            continue
        # LSF numbers the jobs outside of arrays as task 0; in an array of SLURM task 0 is one like any other.
        if environ.get(array) and environ.get(task, "") not in (("", "0") if name == "lsf" else ("",)):
            # A requeued task of an array may get a job number of its own; that of the array stays.
            number = f"{environ[array]}_{environ[task]}"
        suffix = f"-r{environ[rank]}" if environ.get(rank, "0") not in ("", "0") else ""
        text = f"{name}-{number}{suffix}"
        return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)[:80]
    return ""


def is_restart(environ: Mapping[str, str]) -> bool:
    """Whether the scheduler says that it has run this job before."""
    return any(
        environ.get(name, "").isdecimal() and int(environ[name]) > (name == "PBS_RUNCOUNT") for name in _RESTARTS
    )

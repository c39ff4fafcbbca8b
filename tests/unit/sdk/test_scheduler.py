"""The id of a scheduler's job: the same when the job runs again, another for another task or process of it."""

from trackd.scheduler import is_restart, job_name

ARRAY = {"SLURM_JOB_ID": "990", "SLURM_ARRAY_JOB_ID": "812", "SLURM_ARRAY_TASK_ID": "0"}


def test_names() -> None:
    assert job_name({}) == ""
    assert job_name({"SLURM_JOB_ID": "812", "SLURM_PROCID": "0"}) == "slurm-812"
    assert job_name({"SLURM_JOB_ID": "812", "SLURM_PROCID": "3"}) == "slurm-812-r3"
    assert job_name(ARRAY) == "slurm-812_0"
    assert job_name(ARRAY | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_PROCID": "1"}) == "slurm-812_7-r1"
    assert job_name({"PBS_JOBID": "12[3].head/node"}) == "pbs-12-3-.head-node"
    assert job_name({"LSB_JOBID": "5", "LSB_JOBINDEX": "0"}) == "lsf-5"
    assert job_name({"LSB_JOBID": "5", "LSB_JOBINDEX": "2"}) == "lsf-5_2"


def test_a_requeued_task_keeps_its_name() -> None:
    assert job_name(ARRAY) == job_name(ARRAY | {"SLURM_JOB_ID": "1234", "SLURM_RESTART_COUNT": "1"})


def test_restarts() -> None:
    assert not is_restart({}) and not is_restart({"SLURM_RESTART_COUNT": "0"}) and not is_restart({"PBS_RUNCOUNT": "1"})
    assert is_restart({"SLURM_RESTART_COUNT": "2"}) and is_restart({"PBS_RUNCOUNT": "2"})

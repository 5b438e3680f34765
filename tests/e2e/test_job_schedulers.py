"""Real mpirun, mpiexec and srun start the tasks of one job (`--from-env`), real ssh its workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.worker_jobs import (
    HALF,
    REPO,
    SMALL,
    START_LIMIT_S,
    WHOLE,
    assert_same_bits,
    environment,
    momenta,
    params,
    run_alone,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# As root, and with more tasks than cores, where a container has no more.
OPEN_MPI = ("mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2")
STARTERS = {
    "Open MPI": ("ompi_info", OPEN_MPI),
    "MPICH": ("mpiexec.hydra", ("mpiexec.hydra", "-n", "2")),
    "Slurm": ("srun", ("srun", "--kill-on-bad-exit=1", "--overcommit", "-n", "2")),
}


def starter(name: str) -> list[str]:
    """The command in front of a job's own; skips the test where it does not work."""
    program, command = STARTERS[name]
    if shutil.which(program) is None:
        pytest.skip(f"{name} is not installed")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"{name} does not start a task here: {tried.stderr.strip()[-200:]}")
    return list(command)


def launched(tiny, output, *overrides: str) -> list[str]:
    program = [str(REPO / "main_train.py"), *tiny.arguments(output), *SMALL, *HALF, *overrides]
    launcher = [sys.executable, "-m", "sniper.tools.launch", "--from-env", "--timeout", "100"]
    return [*launcher, "--", *program]


def over_ssh(tiny, output) -> list[str]:
    """The same with the two names of this machine, over TCP; skips where ssh asks for something."""
    for host in ("localhost", "127.0.0.1"):
        tried = subprocess.run(
            ["ssh", "-o", "BatchMode=yes", host, "true"], capture_output=True, text=True
        )
        if tried.returncode:
            pytest.skip(f"ssh does not reach {host}: {tried.stderr.strip()[-200:]}")
    program = [str(REPO / "main_train.py"), *tiny.arguments(output), *SMALL, *HALF]
    launcher = [sys.executable, "-m", "sniper.tools.launch", "--hosts", "localhost,127.0.0.1"]
    return [*launcher, "--timeout", "100", "--", *program]


@pytest.mark.parametrize("name", [*sorted(STARTERS), "ssh"])
def test_two_tasks_train_like_one_process_with_two_devices(tiny, fresh, name):
    if name == "ssh":
        if shutil.which("ssh") is None:
            pytest.skip("ssh is not installed")
        command = over_ssh(tiny, fresh)
    else:
        command = [*starter(name), *launched(tiny, fresh)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=START_LIMIT_S + 60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the weights are the same on all 2 workers" in done.stdout
    shutil.rmtree(tiny.root / "alone", ignore_errors=True)
    alone = run_alone(tiny, *SMALL, *WHOLE)
    together = tiny.model_folder(fresh)
    assert_same_bits(params(together), params(alone))
    assert_same_bits(momenta(together), momenta(alone))


@pytest.mark.parametrize("name", sorted(STARTERS))
def test_a_task_that_fails_ends_the_job(tiny, fresh, name):
    command = [*starter(name), *launched(tiny, fresh, "dataset.image_set", "no_such_set")]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=START_LIMIT_S
    )
    assert done.returncode != 0
    assert "no_such_set" in done.stdout and "with sniper launch --from-env" in done.stderr


def test_srun_is_needed_in_a_script_of_sbatch():
    """The script itself has a rank of 0 and the number of tasks, but is one process."""
    variables = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_"))}
    done = subprocess.run(
        [sys.executable, "-m", "sniper.tools.launch", "--from-env", "--", "main_train.py"],
        env={**kept, **environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "put srun before sniper" in done.stderr

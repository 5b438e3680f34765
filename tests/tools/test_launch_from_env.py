"""`sniper launch --from-env`: what each task of mpirun or srun starts; real ones: tests/e2e."""

from __future__ import annotations

import os

import pytest

from sniper.errors import ConfigError
from sniper.tools import launch
from sniper.tools.job import task as tasks
from sniper.tools.job.task import Task, first_node, task_of, tasks_per_node

ADDRESSES = {"gpu003": "10.0.0.3", "gpu004": "10.0.0.4"}


def open_mpi(rank, count=2, local_count=2, **more):
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local_count),
        "PMIX_NAMESPACE": "77",
        **more,
    }


def slurm(rank, count=2, nodes="gpu[003-004]", per_node="1(x2)", node=None, **more):
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_NODEID": str(rank if node is None else node),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        **more,
    }


def hydra(rank, count=2, local_count=2):
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(count), "MPI_LOCALNRANKS": str(local_count)}


def started(monkeypatch, environ, *arguments):
    """(processes, sentence that goes on) of a task with these variables."""
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMI", "SLURM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr(launch, "run_job", lambda p, again, **rest: seen.append((p, again)))
    assert launch.main(["--from-env", *arguments, "--", "main_train.py", "--cfg", "F"]) == 0
    return seen[0]


def told(processes, name):
    """Values of a variable of the environment of all processes."""
    return {process.order.set.get(name) for process in processes}


@pytest.mark.parametrize("make", [open_mpi, hydra, lambda r: slurm(r, 2, "gpu003", "2", 0)])
def test_tasks_of_one_machine_meet_at_one_socket(monkeypatch, make):
    monkeypatch.setattr(tasks, "_hydra_process", lambda: "812 5")
    jobs = [started(monkeypatch, make(rank))[0] for rank in range(2)]
    assert [[p.role for p in job] for job in jobs] == [
        ["scheduler", "server 0", "worker 0"],
        ["worker 1"],
    ]
    everything = jobs[0] + jobs[1]
    (root,) = told(everything, "DMLC_PS_ROOT_PORT")
    assert int(root) > 65535 and jobs[0][0].order.set["PORT"] == root
    assert len({p.order.set["PORT"] for p in everything}) == 4
    assert told(everything, "DMLC_LOCAL") == {"1"}
    assert told(everything, "DMLC_NUM_WORKER") == {"2"}
    assert told(everything, "DMLC_NUM_SERVER") == {"1"}
    assert [p.order.set["SNIPER_WORKER_RANK"] for p in everything if p.is_worker] == ["0", "1"]
    assert all(p.start[1:] == ["-m", "sniper.tools.job.guard"] for p in everything), "no ssh"


def test_servers_go_round_the_tasks(monkeypatch):
    jobs = [started(monkeypatch, open_mpi(r, 3, 3), "-s", "4")[0] for r in range(3)]
    assert [[p.role for p in job] for job in jobs] == [
        ["scheduler", "server 0", "server 3", "worker 0"],
        ["server 1", "worker 1"],
        ["server 2", "worker 2"],
    ]


def test_slurm_says_where_the_first_machine_is(monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", ADDRESSES.__getitem__)
    monkeypatch.setattr(Task, "own_address", lambda task, first: f"{first} of {task.rank}")
    jobs = [started(monkeypatch, slurm(rank), "--port", "7000")[0] for rank in range(2)]
    assert [[p.role for p in job] for job in jobs] == [
        ["scheduler", "server 0", "worker 0"],
        ["server 1", "worker 1"],
    ], "a server for each machine"
    for rank, job in enumerate(jobs):
        assert told(job, "DMLC_PS_ROOT_URI") == {"10.0.0.3"}
        assert told(job, "DMLC_PS_ROOT_PORT") == {"7000"}
        assert told(job, "DMLC_NODE_HOST") == {f"10.0.0.3 of {rank}"}
        assert told(job, "DMLC_LOCAL") == {None}
        assert all(p.order.unset == ["PORT"] for p in job)


def test_addresses():
    several = Task(rank=1, count=2, local_count=1, job="7")
    assert several.own_address("127.0.0.1") == "127.0.0.1"  # the way to itself
    with pytest.raises(ConfigError, match="no network leads"):
        several.own_address("300.0.0.1")
    assert Task(0, 2, 1, "7").own_address("10.9.9.9") == "10.9.9.9"
    assert Task(1, 2, 2, "7").own_address("10.9.9.9") == "127.0.0.1"


@pytest.mark.parametrize("make", [open_mpi, hydra])
def test_mpi_must_be_told_where_the_first_machine_is(monkeypatch, make):
    monkeypatch.setattr(tasks, "_hydra_process", lambda: "812 5")
    with pytest.raises(ConfigError, match="nothing says where task 0 is"):
        started(monkeypatch, make(0, 2, 1))
    job, _ = started(monkeypatch, make(0, 2, 1), "--address", "10.1.1.1")
    assert told(job, "DMLC_PS_ROOT_URI") == {"10.1.1.1"}
    job, _ = started(monkeypatch, {**make(0, 2, 1), "MASTER_ADDR": "10.1.1.2"})
    assert told(job, "DMLC_PS_ROOT_URI") == told(job, "DMLC_NODE_HOST") == {"10.1.1.2"}


def test_a_name_that_leads_to_itself_is_refused(monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(ConfigError, match=r"leads to this one\n.*\n.*127\.0\.1\.1"):
        started(monkeypatch, slurm(0))


@pytest.mark.parametrize(
    ("usable", "local_count", "node_cores", "share"),
    [
        (16, 2, 16, 2),  # all may run everywhere
        (8, 2, 16, 1),  # each is bound to its half
        (8, 2, 8, 2),  # Slurm gave the job 8 cores of the machine, and bound nobody
        (1, 2, 16, 1),
    ],
)
def test_threads_of_a_worker(monkeypatch, usable, local_count, node_cores, share):
    monkeypatch.setattr(tasks, "usable_cores", lambda: usable)
    assert Task(0, local_count, local_count, "7", "", node_cores).core_share == share


def test_how_it_goes_on(monkeypatch):
    _, again = started(monkeypatch, open_mpi(0), "-n", "2")
    assert again == (
        "To go on from the newest checkpoint: mpirun or srun as before, with "
        "sniper launch --from-env -n 2 -- main_train.py --resume --cfg F"
    )


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "neither mpirun nor srun"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "put srun before sniper"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "KeyError: 'OMPI_MCA_ess_base_jobid'"),
        (open_mpi("x"), "incomplete"),
        (open_mpi(2), "task 2 of 2"),
        (open_mpi(0, 2, 3), "3 of them on this machine"),
        (slurm(1, per_node="1"), "IndexError"),
        (slurm(0, nodes=""), "SLURM_STEP_NODELIST="),
    ],
)
def test_what_makes_no_task(environ, text):
    with pytest.raises(ConfigError) as error:
        task_of(environ)
    assert text in str(error.value)


def test_another_number_of_workers_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="each task is one worker"):
        started(monkeypatch, open_mpi(0), "-n", "3")


def test_a_task_of_hydra_has_its_process_among_its_parents():
    with pytest.raises(ConfigError, match="no hydra_pmi_proxy"):
        task_of(hydra(0))


def test_mpirun_within_slurm_counts(monkeypatch):
    both = {**slurm(0, count=1, per_node="1"), **open_mpi(1)}
    assert task_of(both).rank == 1
    monkeypatch.setattr(tasks, "_hydra_process", lambda: "812 5")
    assert task_of({**slurm(0, count=1, per_node="1"), **hydra(1)}).rank == 1


def test_lists_of_slurm():
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1] and tasks_per_node("4") == [4]
    with pytest.raises(ValueError, match="TASKS_PER_NODE=x"):
        tasks_per_node("x")
    names = ["gpu[003-007,9],login", "a,b", "r[1-2]n[5,6]", "one", "n[7]"]
    assert [first_node(name) for name in names] == ["gpu003", "a", "r1n5", "one", "n7"]


def test_jobs_have_numbers_of_their_own():
    numbers = {Task(0, 2, 2, job).local_number() for job in ("7.0", "7.1", "8.0")}
    assert len(numbers) == 3 and min(numbers) >= 1_000_000_000

"""This process as one of the tasks that mpirun or srun has started."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sniper.errors import ConfigError
from sniper.process import usable_cores
from sniper.tools.job.hosts import LEAST_NUMBER, LOOPBACK

# As torch.distributed and its users say it.
ADDRESS_VARIABLE = "MASTER_ADDR"
_HYDRA = "hydra_pmi"  # Linux cuts names of processes after 15 characters: hydra_pmi_proxy


@dataclass(frozen=True)
class Task:
    """One task of a job that another program has started.

    Attributes:
        rank: its number in the job, from 0.
        count: tasks of the job.
        local_count: tasks on this machine.
        job: text that all tasks of this job have, and no other job on this machine.
        first_host: name or address of the machine of task 0; empty: the environment does not say.
        node_cores: cores that the job has on this machine; 0: not known.
    """

    rank: int
    count: int
    local_count: int
    job: str
    first_host: str = ""
    node_cores: int = 0

    @property
    def is_on_one_machine(self) -> bool:
        """Whether all tasks are on this machine."""
        return self.local_count == self.count

    @property
    def num_machines(self) -> int:
        """Machines of the job, when all have as many tasks as this one."""
        return -(-self.count // self.local_count)

    @property
    def core_share(self) -> int:
        """Tasks that this one's cores are shared with: 1 where each is bound to its own."""
        node_cores = self.node_cores or os.cpu_count() or 1
        return 1 if usable_cores() * self.local_count <= node_cores else self.local_count

    def local_number(self) -> int:
        """The number of a local socket that all tasks of the job compute alike."""
        digest = hashlib.sha256(f"{os.getuid()} {self.job}".encode()).digest()
        return LEAST_NUMBER + int.from_bytes(digest[:8], "big") % LEAST_NUMBER

    def own_address(self, first_address: str) -> str:
        """IPv4 address of this machine, as the machine of task 0 sees it.

        Args:
            first_address: IPv4 address of the machine of task 0.

        Raises:
            ConfigError: no network leads there.
        """
        if self.is_on_one_machine:
            return LOOPBACK
        if self.rank == 0:
            return first_address
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((first_address, 9))  # sends nothing: it only chooses a route
                return str(probe.getsockname()[0])
        except OSError as error:
            raise ConfigError(
                "no network leads to the first machine of the job",
                where="sniper launch --from-env",
                got=f"{first_address}: {error.strerror or error}",
                fix="give its address: --address, or MASTER_ADDR in the environment",
            ) from error


def task_of(environ: Mapping[str, str]) -> Task:
    """What mpirun (Open MPI, MPICH, Intel MPI) or srun say of this process.

    Args:
        environ: variables of the environment.

    Raises:
        ConfigError: none of them has started it, or what they say makes no task.
    """
    for read in (_open_mpi, _hydra, _slurm):
        try:
            task = read(environ)
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(
                "the environment of this task is incomplete",
                where="sniper launch --from-env",
                got=f"{type(error).__name__}: {error}",
                expected="all variables that mpirun or srun set",
            ) from error
        if task is not None:
            return task
    raise ConfigError(
        "neither mpirun nor srun has started this process",
        where="sniper launch --from-env",
        expected="OMPI_COMM_WORLD_RANK (Open MPI), PMI_RANK and MPI_LOCALNRANKS (MPICH, Intel "
        "MPI), or SLURM_PROCID and SLURM_STEP_ID (srun) in the environment",
        fix="mpirun -n 2 sniper launch --from-env -- main_train.py ...; in a script of sbatch, "
        "put srun before sniper",
    )


def _open_mpi(environ: Mapping[str, str]) -> Task | None:
    if "OMPI_COMM_WORLD_RANK" not in environ:
        return None
    job = environ.get("PMIX_NAMESPACE") or environ["OMPI_MCA_ess_base_jobid"]
    return _checked(
        rank=int(environ["OMPI_COMM_WORLD_RANK"]),
        count=int(environ["OMPI_COMM_WORLD_SIZE"]),
        local_count=int(environ["OMPI_COMM_WORLD_LOCAL_SIZE"]),
        # The number of a job may come again; the address of its mpirun has a port.
        job=f"{job} {environ.get('PMIX_SERVER_URI2', '')} {environ.get('PMIX_SERVER_URI41', '')}",
        first_host=environ.get(ADDRESS_VARIABLE, ""),
    )


def _hydra(environ: Mapping[str, str]) -> Task | None:
    if "PMI_RANK" not in environ or "MPI_LOCALNRANKS" not in environ:
        return None
    return _checked(
        rank=int(environ["PMI_RANK"]),
        count=int(environ["PMI_SIZE"]),
        local_count=int(environ["MPI_LOCALNRANKS"]),
        job=_hydra_process(),
        first_host=environ.get(ADDRESS_VARIABLE, ""),
    )


def _slurm(environ: Mapping[str, str]) -> Task | None:
    # The script of sbatch has a rank as well, but it is one process.
    if "SLURM_PROCID" not in environ or "SLURM_STEP_ID" not in environ:
        return None
    counts = tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])
    return _checked(
        rank=int(environ["SLURM_PROCID"]),
        count=int(environ["SLURM_STEP_NUM_TASKS"]),
        local_count=counts[int(environ["SLURM_NODEID"])],
        job=f"{environ['SLURM_JOB_ID']}.{environ['SLURM_STEP_ID']}",
        first_host=environ.get(ADDRESS_VARIABLE, "") or first_node(environ["SLURM_STEP_NODELIST"]),
        node_cores=int(environ.get("SLURM_CPUS_ON_NODE", "0")),
    )


def _checked(**values: int | str) -> Task:
    task = Task(**values)  # type: ignore[arg-type]
    if not 0 <= task.rank < task.count or not 1 <= task.local_count <= task.count:
        raise ValueError(
            f"task {task.rank} of {task.count}, {task.local_count} of them on this machine"
        )
    return task


def tasks_per_node(text: str) -> list[int]:
    """Numbers of tasks as Slurm writes them: `2(x3),1` is 2, 2, 2, 1.

    Raises:
        ValueError: the text is something else.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={text}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def first_node(text: str) -> str:
    """First name of a list of nodes as Slurm writes it: `gpu[003-007,9],login` is gpu003.

    Raises:
        ValueError: the list is empty.
    """
    name = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", text).split(",")[0]
    if not name:
        raise ValueError(f"SLURM_STEP_NODELIST={text}")
    return name


def _hydra_process() -> str:
    """MPICH names its job nowhere: its process on this machine, the parent of all tasks here."""
    number = os.getpid()
    while number > 1:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name.startswith(_HYDRA):
            return f"{number} {rest.split()[19]}"  # its number and when it was started
        number = int(rest.split()[1])
    raise ValueError("no hydra_pmi_proxy among the parents of this process")

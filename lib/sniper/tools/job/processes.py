"""Which processes a job consists of, and what each of them is told."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sniper.tools.job.guard import NOT_WANTED, Order, initial_environment, travelling_variables
from sniper.tools.job.hosts import LOOPBACK, Host, local_number, local_socket
from sniper.tools.job.task import Task

# A remote guard ends its process when it has not heard from the launcher for so long.
SILENCE_S = 25.0

_TRAINERS = ("main_train.py", "sniper-train")


@dataclass(frozen=True)
class JobSettings:
    """What the user wants.

    Attributes:
        command: program and arguments of the workers.
        num_workers: training processes.
        num_servers: processes that sum the gradients.
        hosts: machines that ssh reaches; none: this one, or those of `task`.
        address: of the first machine, as the others see it.
        port: of the scheduler there; on one machine its number in `local_socket`.
        timeout_s: the job is ended when no worker got on for so long.
        task: this process among those that mpirun or srun has started; None: it starts all.
        python: interpreter on all machines.
        folder: working directory on all machines.
    """

    command: tuple[str, ...]
    num_workers: int
    num_servers: int
    hosts: tuple[Host, ...]
    address: str
    port: int
    timeout_s: float
    task: Task | None = None
    python: str = sys.executable
    folder: str = field(default_factory=lambda: str(Path.cwd()))

    @property
    def is_on_one_machine(self) -> bool:
        """Whether the processes talk through sockets in the file system."""
        return not self.hosts if self.task is None else self.task.is_on_one_machine

    def is_here(self, number: int) -> bool:
        """Whether this launcher starts the processes of a number; they go round the tasks."""
        return self.task is None or number % self.task.count == self.task.rank


@dataclass(frozen=True)
class Process:
    """One process of a job.

    Attributes:
        role: "worker 0", "server 1" or "scheduler".
        start: command that starts its guard, here.
        environment: of the guard.
        order: what the guard is told.
    """

    role: str
    start: list[str]
    environment: dict[str, str]
    order: Order

    @property
    def is_worker(self) -> bool:
        """Whether it trains."""
        return self.role.startswith("worker")


def plan(settings: JobSettings) -> list[Process]:
    """All processes that this launcher starts, in the order of their start."""
    serving = [settings.python, "-m", "sniper.tools.job.server"]
    training = worker_command(settings.command, settings.python)
    roles = [("scheduler", 0, serving)]
    roles += [(f"server {i}", i, serving) for i in range(settings.num_servers)]
    roles += [(f"worker {i}", i, training) for i in range(settings.num_workers)]
    return [_process(settings, *role) for role in roles if settings.is_here(role[1])]


def worker_command(command: Sequence[str], python: str) -> list[str]:
    """What the workers run: Python files and our own programs with this interpreter.

    A training is told to work with the others.
    """
    command = list(command)
    if is_training(command) and "default.kvstore" not in command:
        command += [] if "--set" in command else ["--set"]
        command += ["default.kvstore", "dist_sync"]
    if command[0].endswith(".py"):
        return [python, *command]
    if command[0] == "sniper":
        return [python, "-m", "sniper.tools.cli", *command[1:]]
    if command[0] == "sniper-train":
        return [python, "-m", "sniper.tools.cli", "train", *command[1:]]
    return command


def is_training(command: Sequence[str]) -> bool:
    """Whether this is our training program."""
    return Path(command[0]).name in _TRAINERS or list(command[:2]) == ["sniper", "train"]


def resume_command(command: Sequence[str]) -> list[str]:
    """The same command, going on from the newest checkpoint."""
    if not is_training(command) or "--resume" in command:
        return list(command)
    program = 2 if command[0] == "sniper" else 1
    return [*command[:program], "--resume", *command[program:]]


def _process(settings: JobSettings, role: str, number: int, command: list[str]) -> Process:
    kind = role.split()[0]
    host = settings.hosts[number % len(settings.hosts)] if settings.hosts else None
    variables = {
        "DMLC_ROLE": kind,
        "DMLC_PS_ROOT_URI": settings.address,
        "DMLC_PS_ROOT_PORT": str(settings.port),
        "DMLC_NUM_WORKER": str(settings.num_workers),
        "DMLC_NUM_SERVER": str(settings.num_servers),
        "DMLC_NODE_HOST": _node_address(settings, host),
        "SNIPER_LAUNCH_TIMEOUT": str(settings.timeout_s),
    }
    if kind == "worker":
        variables["SNIPER_WORKER_RANK"] = str(number)
    if settings.is_on_one_machine:
        # Sockets in the file system, which no other machine and no other user reaches.
        variables |= {"DMLC_LOCAL": "1", "PORT": str(settings.port)}
        if kind != "scheduler":
            variables["PORT"] = str(local_number())
    order = Order(
        command=command,
        folder=settings.folder,
        set={**travelling_variables(), **variables} if host else variables,
        unset=[] if settings.is_on_one_machine else NOT_WANTED,
        core_share=_core_share(settings),
        silence_s=SILENCE_S if host else 0.0,
    )
    guard = [settings.python, "-m", "sniper.tools.job.guard"]
    if host is None:
        return Process(role, guard, initial_environment(), order)
    return Process(role, _over_ssh(host, guard), initial_environment(), order)


def remove_sockets(processes: Sequence[Process]) -> None:
    """Removes what killed processes of this machine have left of their sockets."""
    for process in processes:
        if process.order.set.get("DMLC_LOCAL"):
            with contextlib.suppress(OSError):
                local_socket(int(process.order.set["PORT"])).unlink()


def _core_share(settings: JobSettings) -> int:
    if settings.task is not None:
        return settings.task.core_share
    return -(-settings.num_workers // max(1, len(settings.hosts)))


def _node_address(settings: JobSettings, host: Host | None) -> str:
    if settings.task is not None:
        return settings.task.own_address(settings.address)
    if host is None:
        return LOOPBACK
    return settings.address if host == settings.hosts[0] else host.address()


def _over_ssh(host: Host, guard: list[str]) -> list[str]:
    """The guard on another machine; it must find the package before it gets its order."""
    path = travelling_variables().get("PYTHONPATH")
    prefix = ["env", f"PYTHONPATH={path}"] if path else []
    return [*host.ssh_command(), shlex.join([*prefix, *guard])]

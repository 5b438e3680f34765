"""`sniper launch`: train with several processes, on one machine or on several."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from sniper.config.kinds import Int
from sniper.errors import ConfigError
from sniper.tools.arguments import (
    as_positive,
    as_positive_number,
    command_parser,
    value_of,
)
from sniper.tools.job.hosts import LOOPBACK, Host, local_number, parse_hosts, read_hostfile
from sniper.tools.job.processes import (
    JobSettings,
    is_training,
    plan,
    remove_sockets,
    resume_command,
)
from sniper.tools.job.task import ADDRESS_VARIABLE, Task, task_of
from sniper.tools.job.watch import run_job

DEFAULT_TIMEOUT_S = 1800.0
# Of the scheduler on another machine, where nobody can look for a free port from here.
DEFAULT_PORT = 9091

_DESCRIPTION = """\
Train one detector with several processes ("workers"), on one machine or on several.

Every worker trains its part of each batch; parameter servers add up the gradients, and all
workers make the same update. N workers with BATCH_IMAGES chips a device train like one process
with N times as many devices: the batch, and what depends on it, is N times as large.
"""

_EPILOG = """\
examples:
  two processes on this machine, one server:
    sniper launch -n 2 -s 1 -- main_train.py --cfg sniper_mobilenetv2_toy --set gpus cpu
  two machines that ssh reaches without a password:
    sniper launch --hosts alice,bob -- main_train.py --cfg my.yml --set gpus 0,1
  the tasks of a job of Slurm or MPI, one worker each:
    srun --kill-on-bad-exit=1 sniper launch --from-env -- main_train.py --cfg my.yml
    mpirun --bind-to none sniper launch --from-env -- main_train.py --cfg my.yml

Everything after `--` is the command of the workers; .py files run with this interpreter. A
training gets `--set default.kvstore dist_sync` by itself. Worker 0 writes checkpoints and logs.

On other machines the package, the data set and the working folder must be at the same places
(a shared file system is easiest, and --resume needs the checkpoints everywhere).

There is no authentication and no encryption. On one machine the processes talk through sockets
in /tmp that only you can use. On several they listen on TCP ports of the addresses by which they
reach each other (the first host's --port, and free ones): whoever can connect there can read and
change the gradients, and a single stray connection, of a port scan for example, can end the job.
Use a network of your own, or let a firewall pass only these machines.

When a process fails or is killed, or when no worker makes an update for --timeout seconds, the
whole job ends, with a message that names the process and the command that goes on from the
newest checkpoint. The exit code is that of the process that failed first. Ctrl-C and SIGTERM
let the workers save a checkpoint first.

Several GPUs of one machine need no launcher: --set gpus 0,1 uses them in one process.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 when all workers have ended well.

    Raises:
        ConfigError: flags or hosts are wrong.
        JobError: a process failed; its code is the exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, command = _split(arguments)
    args = _parser().parse_args(own)
    if not command:
        raise ConfigError(
            "nothing to launch",
            where="sniper launch",
            expected="a command after --, e.g. sniper launch -n 2 -- main_train.py --cfg F",
        )
    settings = _settings(args, command)
    processes = plan(settings)
    try:
        with _sigterm_as_ctrl_c():
            run_job(
                processes, timeout_s=settings.timeout_s, again=_again(own, command, args.from_env)
            )
    finally:
        remove_sockets(processes)
    return 0


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Batch systems end jobs with SIGTERM: the workers shall save what they have."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _again(own: list[str], command: list[str], from_env: bool) -> str:
    line = shlex.join(["sniper", "launch", *own, "--", *resume_command(command)])
    begin = "To go on from the newest checkpoint" if is_training(command) else "To start again"
    return f"{begin}: {'mpirun or srun as before, with ' if from_env else ''}{line}"


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own flags, and the command after the first `--`."""
    if "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "sniper launch",
        _DESCRIPTION,
        _EPILOG,
        usage="sniper launch [-n WORKERS] [-s SERVERS] [--hosts A,B | -H FILE] ... -- command",
    )
    add = parser.add_argument
    add(
        "-n",
        "--workers",
        type=as_positive,
        metavar="N",
        help="workers (default: one per host, else 2)",
    )
    add(
        "-s",
        "--servers",
        type=as_positive,
        metavar="N",
        help="servers (default: one per host, else 1)",
    )
    hosts = parser.add_mutually_exclusive_group()
    hosts.add_argument(
        "--hosts", metavar="LIST", help="comma list of [user@]host[:ssh_port]; processes go round"
    )
    hosts.add_argument(
        "-H", "--hostfile", type=Path, metavar="FILE", help="the same, one host in a line"
    )
    hosts.add_argument(
        "--from-env",
        action="store_true",
        help="this is one of the tasks that mpirun (Open MPI, MPICH, Intel MPI) or srun has "
        "started: it runs one worker, and task 0 what joins them",
    )
    add(
        "--address",
        metavar="ADDRESS",
        help="the first host's IPv4 address (default: that of its name; with --from-env "
        f"${ADDRESS_VARIABLE}, or Slurm's first node)",
    )
    add(
        "--port",
        type=value_of(Int(1, 65535)),
        metavar="PORT",
        help=f"TCP port of the first host, where all processes meet (default: {DEFAULT_PORT})",
    )
    add(
        "--timeout",
        type=as_positive_number,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="end the job when no worker made an update for so long; the time to the first update, "
        "data preparation included, counts too (default: %(default)g)",
    )
    return parser


def _settings(args: argparse.Namespace, command: list[str]) -> JobSettings:
    if args.from_env:
        return _settings_of_task(args, command, task_of(os.environ))
    hosts = _hosts(args)
    address = args.address or (hosts[0].address() if hosts else LOOPBACK)
    return JobSettings(
        command=tuple(command),
        num_workers=args.workers or len(hosts) or 2,
        num_servers=args.servers or len(hosts) or 1,
        hosts=tuple(hosts),
        address=address,
        port=args.port or DEFAULT_PORT if hosts else local_number(),
        timeout_s=args.timeout,
    )


def _settings_of_task(args: argparse.Namespace, command: list[str], task: Task) -> JobSettings:
    if args.workers not in (None, task.count):
        raise ConfigError(
            "each task is one worker",
            where="sniper launch --from-env -n",
            got=args.workers,
            expected=f"{task.count}, the number of tasks, or no -n",
        )
    return JobSettings(
        command=tuple(command),
        num_workers=task.count,
        num_servers=args.servers or task.num_machines,
        hosts=(),
        address=_first_address(args.address, task),
        port=task.local_number() if task.is_on_one_machine else args.port or DEFAULT_PORT,
        timeout_s=args.timeout,
        task=task,
    )


def _first_address(given: str | None, task: Task) -> str:
    if task.is_on_one_machine:
        return LOOPBACK
    if not (given or task.first_host):
        raise ConfigError(
            "the tasks are on several machines, and nothing says where task 0 is",
            where="sniper launch --from-env",
            expected=f"--address, or {ADDRESS_VARIABLE} in the environment of all tasks",
            fix=f"on the first machine: mpirun -x {ADDRESS_VARIABLE}=$(hostname -I | cut -d' ' -f1)"
            " ... (Open MPI), mpiexec -genv ... (MPICH)",
        )
    address = given or Host(task.first_host).address()
    if address.startswith("127."):
        raise ConfigError(
            "the tasks are on several machines, and the first one's address leads to this one",
            where="sniper launch --from-env",
            got=address,
            expected=f"an address that all of them reach: --address, or {ADDRESS_VARIABLE}",
        )
    return address


def _hosts(args: argparse.Namespace) -> list[Host]:
    if args.hostfile:
        return read_hostfile(args.hostfile)
    return parse_hosts(args.hosts.split(",")) if args.hosts else []


if __name__ == "__main__":
    from sniper.tools.cli import run_main

    sys.exit(run_main(main))

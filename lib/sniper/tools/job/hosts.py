"""Machines of a job: their names, addresses and ports."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sniper.errors import ConfigError

LOOPBACK = "127.0.0.1"
# Numbers of local sockets are no TCP ports, and larger than all of them.
LEAST_NUMBER = 1_000_000_000
_PATTERN = re.compile(r"(?:(?P<user>[^@\s:]+)@)?(?P<name>[A-Za-z0-9][\w.-]*)(?::(?P<port>\d+))?")


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches.

    Attributes:
        name: its name or address.
        user: for ssh; empty: ssh's choice.
        ssh_port: for ssh; 0: ssh's choice.
    """

    name: str
    user: str = ""
    ssh_port: int = 0

    def ssh_command(self) -> list[str]:
        """`ssh` up to the remote command; asks nothing, and notices a dead connection."""
        options = ["BatchMode=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3"]
        port = ["-p", str(self.ssh_port)] if self.ssh_port else []
        target = f"{self.user}@{self.name}" if self.user else self.name
        return ["ssh", "-T", *(part for o in options for part in ("-o", o)), *port, target]

    def address(self) -> str:
        """IPv4 address.

        Raises:
            ConfigError: the name is not known here.
        """
        try:
            return socket.gethostbyname(self.name)
        except OSError as error:
            raise ConfigError(
                "the address of a host is not known",
                where="sniper launch",
                got=f"{self.name}: {error.strerror or error}",
                fix="write its address into the list of hosts",
            ) from error


def parse_hosts(entries: Iterable[str]) -> list[Host]:
    """`[user@]name[:ssh_port]` entries.

    Raises:
        ConfigError: an entry is none.
    """
    hosts = []
    for entry in entries:
        match = _PATTERN.fullmatch(entry)
        if match is None:
            raise ConfigError(
                "this is no host", where="sniper launch", got=entry, expected="[user@]name[:port]"
            )
        hosts.append(Host(match["name"], match["user"] or "", int(match["port"] or 0)))
    return hosts


def read_hostfile(path: Path) -> list[Host]:
    """Hosts of a file, one in a line; `#` begins a comment.

    Raises:
        ConfigError: the file cannot be read, or names no host.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the list of hosts cannot be read", where=path, got=error) from error
    hosts = parse_hosts(entry for line in lines if (entry := line.partition("#")[0].strip()))
    if not hosts:
        raise ConfigError("the list of hosts is empty", where=path)
    return hosts


def local_socket(number: int) -> Path:
    """Where MXNet's parameter server has a socket when all processes are on one machine."""
    return Path("/tmp") / str(number)


def local_number() -> int:
    """A number of a socket that nobody has, and that nobody else will think of."""
    while True:
        number = LEAST_NUMBER + secrets.randbelow(LEAST_NUMBER)
        if not local_socket(number).exists():
            return number

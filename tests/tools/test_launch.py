"""`sniper launch`: what is started where, and with which flags; the job itself: test_job_watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.tools import launch
from sniper.tools.cli import main as sniper_main
from sniper.tools.cli import run_main
from sniper.tools.job.guard import (
    ERRORS,
    EXIT,
    OUTPUT,
    START,
    FrameReader,
    LineCutter,
    frame,
    initial_environment,
)
from sniper.tools.job.hosts import Host, parse_hosts, read_hostfile
from sniper.tools.job.processes import (
    JobSettings,
    plan,
    remove_sockets,
    resume_command,
    worker_command,
)

PYTHON = "/env/bin/python"


def settings(**changes):
    values = {
        "command": ("main_train.py", "--cfg", "my.yml"),
        "num_workers": 2,
        "num_servers": 1,
        "hosts": (),
        "address": "127.0.0.1",
        "port": 5000,
        "timeout_s": 60.0,
        "python": PYTHON,
        "folder": "/home/me/project",
    }
    return JobSettings(**{**values, **changes})


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("x.py a", f"{PYTHON} x.py a"),
        ("main_train.py", f"{PYTHON} main_train.py --set default.kvstore dist_sync"),
        (
            "d/main_train.py --cfg F --set TRAIN.lr 1",
            f"{PYTHON} d/main_train.py --cfg F --set TRAIN.lr 1 default.kvstore dist_sync",
        ),
        (
            "main_train.py --set default.kvstore dist_sync",
            f"{PYTHON} main_train.py --set default.kvstore dist_sync",
        ),
        (
            "sniper train --cfg F",
            f"{PYTHON} -m sniper.tools.cli train --cfg F --set default.kvstore dist_sync",
        ),
        ("sniper-train", f"{PYTHON} -m sniper.tools.cli train --set default.kvstore dist_sync"),
        ("sniper doctor", f"{PYTHON} -m sniper.tools.cli doctor"),
        ("bash x.sh", "bash x.sh"),
    ],
)
def test_what_the_workers_run(command, expected):
    assert worker_command(command.split(), PYTHON) == expected.split()


def test_the_added_flags_are_understood():
    command = worker_command(["main_train.py", "--set", "TRAIN.lr", "0.5"], PYTHON)
    cfg = load_config("sniper_mobilenetv2_toy", command[command.index("--set") + 1 :])
    assert (cfg.default.kvstore, cfg.TRAIN.lr) == ("dist_sync", 0.5)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("main_train.py --cfg F", "main_train.py --resume --cfg F"),
        ("sniper train --set a 1", "sniper train --resume --set a 1"),
        ("sniper-train --resume", "sniper-train --resume"),
        ("x.py", "x.py"),
    ],
)
def test_the_command_that_goes_on(command, expected):
    assert resume_command(command.split()) == expected.split()


def test_a_job_on_this_machine():
    processes = plan(settings(num_servers=2))
    roles = [process.role for process in processes]
    assert roles == ["scheduler", "server 0", "server 1", "worker 0", "worker 1"]
    for process in processes:
        told = process.order.set
        assert told["DMLC_ROLE"] == process.role.split()[0]
        assert told["DMLC_NUM_WORKER"] == told["DMLC_NUM_SERVER"] == "2"
        assert (told["DMLC_PS_ROOT_URI"], told["DMLC_PS_ROOT_PORT"]) == ("127.0.0.1", "5000")
        assert told["DMLC_NODE_HOST"] == "127.0.0.1" and told["DMLC_LOCAL"] == "1"
        assert process.order.unset == []
        assert process.start[0] == PYTHON and process.order.folder == "/home/me/project"
        assert process.order.core_share == 2 and process.order.silence_s == 0
    numbers = [int(process.order.set["PORT"]) for process in processes]
    assert numbers[0] == 5000, "where the others look for the scheduler"
    assert len(set(numbers)) == 5 and min(numbers[1:]) > 65535, "no TCP ports"
    ranks = [process.order.set.get("SNIPER_WORKER_RANK") for process in processes]
    assert ranks == [None, None, None, "0", "1"]


def test_a_job_on_hosts(monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", lambda name: {"b": "10.0.0.2"}[name])
    monkeypatch.setattr(
        "sniper.tools.job.processes.travelling_variables",
        lambda: {"PYTHONPATH": "/a b/lib", "MXNET_X": "1"},
    )
    hosts = tuple(parse_hosts(["me@a:2222", "b"]))
    processes = plan(settings(hosts=hosts, num_workers=3, address="10.0.0.1"))
    where = [(p.role, p.start[p.start.index("-T") : -1][-1]) for p in processes]
    assert where == [
        ("scheduler", "me@a"),
        ("server 0", "me@a"),
        ("worker 0", "me@a"),
        ("worker 1", "b"),
        ("worker 2", "me@a"),
    ]
    remote = processes[0].start
    assert remote[0] == "ssh" and "BatchMode=yes" in remote
    assert remote[remote.index("-p") + 1] == "2222" and "-p" not in processes[3].start
    assert remote[-1] == f"env 'PYTHONPATH=/a b/lib' {PYTHON} -m sniper.tools.job.guard"
    for process, address in zip(processes, ["10.0.0.1"] * 3 + ["10.0.0.2", "10.0.0.1"]):
        assert process.order.set["DMLC_NODE_HOST"] == address
        assert process.order.set["DMLC_PS_ROOT_URI"] == "10.0.0.1"
        assert process.order.set["MXNET_X"] == "1"
        assert "DMLC_LOCAL" not in process.order.set and process.order.unset == ["PORT"]
        assert process.order.core_share == 2, "two of three workers share a machine"
        assert process.order.silence_s > 0


def test_lists_of_hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# mine\nalice\n\nbob@10.0.0.7:22  # fast\n")
    assert read_hostfile(path) == [Host("alice"), Host("10.0.0.7", "bob", 22)]
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="empty"):
        read_hostfile(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hostfile(tmp_path / "lost")


@pytest.mark.parametrize("entry", ["", "-oProxyCommand=evil", "a b", "a;b", "a:x", "@a", "a@-b"])
def test_what_is_no_host(entry):
    with pytest.raises(ConfigError, match="no host"):
        parse_hosts([entry])


def test_an_unknown_host_is_named(monkeypatch):
    def unknown(name):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.gethostbyname", unknown)
    with pytest.raises(ConfigError, match="alice: Name or service"):
        launch.main(["--hosts", "alice", "--", "main_train.py"])


def test_sockets_of_a_local_job_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("sniper.tools.job.processes.local_socket", lambda n: tmp_path / str(n))
    processes = plan(settings())
    for process in processes[1:]:
        (tmp_path / process.order.set["PORT"]).touch()
    (tmp_path / "another").touch()
    remove_sockets(processes)
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_help_says_that_there_is_no_authentication(capsys):
    with pytest.raises(SystemExit):
        launch.main(["--help"])
    assert "There is no authentication" in capsys.readouterr().out


def started(monkeypatch, *arguments):
    """(processes, timeout, sentence) that `sniper launch` would run."""
    seen = []
    monkeypatch.setattr(launch, "run_job", lambda p, **rest: seen.append((p, rest)))
    assert sniper_main(["launch", *arguments]) == 0
    return seen[0]


def test_defaults(monkeypatch):
    processes, rest = started(monkeypatch, "--", "main_train.py", "--cfg", "my file.yml")
    assert [p.role for p in processes] == ["scheduler", "server 0", "worker 0", "worker 1"]
    assert rest["timeout_s"] == 1800
    assert rest["again"] == (
        "To go on from the newest checkpoint: sniper launch -- main_train.py --resume --cfg "
        "'my file.yml'"
    )


def test_one_worker_and_server_per_host(monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", lambda name: f"10.0.0.{len(name)}")
    processes, _ = started(monkeypatch, "--hosts", "a,bb,ccc", "--", "main_train.py")
    assert [p.role for p in processes if p.order.set["DMLC_NODE_HOST"] == "10.0.0.2"] == [
        "server 1",
        "worker 1",
    ]
    assert len(processes) == 7
    assert processes[0].order.set["DMLC_PS_ROOT_URI"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-n", "2"], "a command after --"),
        (["--"], "a command after --"),
        (["-n", "0", "--", "x.py"], "expected int (>= 1)"),
        (["--timeout", "nan", "--", "x.py"], "expected float"),
        (["--hosts", "a", "-H", "b", "--", "x.py"], "not allowed with"),
        (["x.py"], "unrecognized"),
        (["--from-env", "--hosts", "a", "--", "x.py"], "not allowed with"),
    ],
)
def test_wrong_flags(arguments, text, capsys):
    assert run_main(launch.main, arguments) == 2
    assert text in capsys.readouterr().err


def test_help_names_the_essentials(capsys):
    assert run_main(launch.main, ["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("sniper launch -n 2 -s 1 -- main_train.py", "--hosts", "dist_sync", "--timeout"):
        assert word in text


def test_the_launcher_needs_no_mxnet():
    code = (
        "import sys; sys.modules['mxnet'] = None\n"
        "import sniper.tools.launch, sniper.tools.job.guard, sniper.training.heartbeat\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_the_environment_before_we_changed_it():
    code = (
        "import json, sniper; from sniper.tools.job.guard import initial_environment\n"
        "print(json.dumps(initial_environment().get('OMP_NUM_THREADS')))"
    )
    for given in ({}, {"OMP_NUM_THREADS": "3"}):
        base = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**base, **given},
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert json.loads(done.stdout) == given.get("OMP_NUM_THREADS")
    assert initial_environment()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_arrive_whole_however_they_are_cut(size):
    sent = [(OUTPUT, b"a\nb"), (ERRORS, b""), (OUTPUT, bytes(range(256)) * 5), (EXIT, b"3")]
    data = b"Welcome!\n" + START + b"".join(frame(*pair) for pair in sent)
    reader = FrameReader()
    assert reader.rest() == b""
    got = []
    for begin in range(0, len(data), size):
        got += reader.feed(data[begin : begin + size])
    assert got == sent
    assert (reader.noise, reader.rest()) == (b"Welcome!\n", b"")


def test_what_comes_instead_of_frames():
    reader = FrameReader()
    assert list(reader.feed(b"no such command\n")) == []
    assert reader.rest() == b"no such command\n"


def test_lines():
    cutter = LineCutter()
    assert list(cutter.feed(b"one\ntw")) == ["one"]
    assert list(cutter.feed(b"o\r\n3%\r4%\r")) == ["two", "3%", "4%"]
    assert list(cutter.feed("für".encode()[:2])) == []
    assert list(cutter.feed("für".encode()[2:] + b"\n\xff\n")) == ["für", "\ufffd"]
    assert list(cutter.feed(b"end")) == [] and cutter.rest() == "end" and cutter.rest() == ""

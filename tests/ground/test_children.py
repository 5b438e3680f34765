"""Child processes on their own: both ways to start them, and every way in which they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sniper.children import ChildKind, Children, attempt, exit_cause
from sniper.errors import DataError, TrainingError

LIB = Path(__file__).resolve().parents[2] / "lib"
LIMIT_S = 30
KIND = ChildKind("helper", "buy memory", "look at it", "tell us", deed="while it helped")


def echo(pipe):
    while True:
        message = pipe.recv()
        pipe.send((message, os.getpid()))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids):
    deadline = time.monotonic() + LIMIT_S
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def start(how, stall_timeout_s=LIMIT_S, serve=echo, count=2):
    children = Children(KIND, stall_timeout_s)
    for number in range(count):
        if how == "fork":
            children.fork(f"helper-{number}", serve)
        else:
            children.spawn(serve)
    return children


@pytest.fixture
def importable(monkeypatch):
    """Fresh interpreters find the functions of this file, and import them by its name."""
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", folder)
    monkeypatch.setattr(echo, "__module__", Path(__file__).stem)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_every_child_answers_ignores_ctrl_c_and_is_ended(importable, how):
    with start(how) as children:
        answers = {}
        for child in children:
            children.send(child, "first")
        while len(answers) < 2:
            answers.update({child: answer for child, answer in children.answers()})
        assert {answer for answer, _ in answers.values()} == {"first"}
        assert all(child.process.pid == pid for child, (_, pid) in answers.items())
        pids = [child.process.pid for child in children]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        for child in children:
            children.send(child, "second")
        assert next(children.answers())[1][0] == "second"
    assert gone(pids) and not children.is_open
    children.close()


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_death_is_told_with_its_cause_and_the_task(importable, how):
    with start(how) as children:
        first, second = children
        second.tasks.update({1: "image 1", 2: "image 2"})
        os.kill(second.process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError) as caught:
            list(children.answers())
    text = str(caught.value)
    assert "died while it helped: killed by SIGKILL" in text and "buy memory" in text
    assert "image 1" in text and "image 2" not in text


def leave_a_copy_of_the_pipe(pipe):
    if os.fork():
        os._exit(3)
    time.sleep(LIMIT_S)
    os._exit(0)


def test_a_death_is_noticed_though_the_pipe_lives_on():
    with (
        start("fork", serve=leave_a_copy_of_the_pipe, count=1) as children,
        pytest.raises(TrainingError, match="exit code 3"),
    ):
        list(children.answers())


def stop_in_a_message(pipe):
    os.write(pipe.fileno(), b"\0\0\1\0half of it")
    time.sleep(10 * LIMIT_S)


def test_half_a_message_is_not_waited_for_for_ever():
    with (
        start("fork", 0.5, stop_in_a_message, 1) as children,
        pytest.raises(TrainingError, match=r"no helper answered for 0\.5 s[\s\S]*look at it"),
    ):
        list(children.answers())


def test_a_child_that_refuses_to_end_is_killed():
    def refuse(pipe):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipe.send("deaf")
        time.sleep(10 * LIMIT_S)

    children = start("fork", serve=refuse, count=1)
    assert [answer for _, answer in children.answers()] == ["deaf"]
    pids = [child.process.pid for child in children]
    children.close()
    assert gone(pids)


PARENT = """
import time
from sniper.children import ChildKind, Children

def busy(pipe):
    pipe.send("busy")
    while True:
        sum(range(1000))

children = Children(ChildKind("helper", "", ""), 60)
children.fork("helper", busy)
print(*[child.process.pid for child in children], flush=True)
next(children.answers())
print("busy", flush=True)
time.sleep(600)
"""


def test_a_busy_child_ends_with_its_killed_parent():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIB)},
    )
    pids = [int(parent.stdout.readline())]
    assert parent.stdout.readline() == "busy\n" and all(map(is_running, pids))
    parent.kill()
    parent.communicate()
    assert gone(pids)


def test_what_goes_wrong_in_a_child_is_raised_by_the_parent():
    children = Children(KIND, 1)
    assert attempt(lambda: 7) == (7, None)
    for error, kind, text in (
        (DataError("cut off", where="a.jpg"), DataError, "a.jpg"),
        (ZeroDivisionError("by nought"), TrainingError, r"image 3[\s\S]*by nought[\s\S]*tell us"),
    ):

        def fail(error=error):
            raise error

        value, failure = attempt(fail)
        assert value is None
        with pytest.raises(kind, match=text):
            children.fail(failure, "image 3")


def test_causes_of_an_end_in_words():
    assert exit_cause(3) == "exit code 3"
    assert exit_cause(-signal.SIGSEGV) == "killed by SIGSEGV"

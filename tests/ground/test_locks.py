"""One run at a time in a folder: who is refused, and which locks are stale."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace

import pytest

from sniper import locks
from sniper.errors import TrainingError
from sniper.locks import folder_lock

HOLD = """
import os, sys, time
from sniper.locks import folder_lock
with folder_lock(sys.argv[1], fix="choose another"):
    if len(sys.argv) > 2 and os.fork() == 0:
        os.close(1)  # else whoever started its parent would wait for it
        time.sleep(60)
        os._exit(0)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


def hold(folder, *flags):
    """A process that holds the lock until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline().strip() == str(process.pid)
    return process


def refusal(folder) -> str:
    with pytest.raises(TrainingError) as caught, folder_lock(folder, fix="choose another"):
        pass
    return str(caught.value)


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    folder = tmp_path / "new" / "results"
    holder = hold(folder)
    message = refusal(folder)
    assert f"process {holder.pid} on machine {os.uname().nodename}" in message
    assert "sniper.locks" in message and "choose another" in message and "delete" not in message
    holder.communicate("end\n", timeout=60)
    assert list(folder.iterdir()) == []
    with folder_lock(folder, fix=""):
        pass


def test_threads_of_one_process_keep_each_other_out_as_well(tmp_path):
    with folder_lock(tmp_path, fix=""):
        assert f"process {os.getpid()}" in refusal(tmp_path)
        with folder_lock(tmp_path, fix="", name="other/set"):
            assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path, fix=""):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [(), ("with a forked child that lives on",)])
def test_what_a_killed_run_leaves_behind_keeps_nobody_out(tmp_path, flags):
    holder = hold(tmp_path, *flags)
    holder.kill()
    holder.communicate()
    assert list(tmp_path.iterdir())
    with folder_lock(tmp_path, fix=""):
        pass
    assert list(tmp_path.iterdir()) == []
    if flags:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_take_the_lock_along(tmp_path):
    child = -1
    with suppress(InterruptedError), folder_lock(tmp_path, fix=""):
        child = os.fork()
        if not child:
            raise InterruptedError
        os.waitpid(child, 0)
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], input="", capture_output=True, text=True
        )
        assert done.returncode == 1 and f"process {os.getpid()}" in done.stderr
    if not child:
        os._exit(0)


def leave(folder, holder, silent_s=0.0):
    """A lock file as a holder elsewhere has left it."""
    path = folder / ".run.lock"
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - silent_s,) * 2)


def test_a_holder_on_another_machine_counts_while_it_gives_signs_of_life(tmp_path):
    elsewhere = replace(locks._this_process(), machine="alice", boot="another", process=4711)
    leave(tmp_path, elsewhere)
    message = refusal(tmp_path)
    assert "process 4711 on machine alice" in message and f"delete {tmp_path}" in message
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
    leave(tmp_path, elsewhere, silent_s=300)
    with folder_lock(tmp_path, fix=""):
        pass
    # The same machine, started anew.
    leave(tmp_path, replace(elsewhere, machine=os.uname().nodename))
    with folder_lock(tmp_path, fix=""):
        pass


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT_S", 0.01)
    path = tmp_path / ".run.lock"
    with folder_lock(tmp_path, fix=""):
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"process": 3}'])
def test_broken_lock_files_are_stale(tmp_path, content):
    (tmp_path / ".run.lock").write_text(content)
    with folder_lock(tmp_path, fix=""):
        pass


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    alive = replace(locks._this_process(), process=os.getppid())
    leave(tmp_path, alive)
    assert f"process {os.getppid()}" in refusal(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave(tmp_path, replace(alive, process=ended.pid))
    with folder_lock(tmp_path, fix=""):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written") as caught:
        with folder_lock(tmp_path / "file" / "out", fix=""):
            pass
    assert "file" in str(caught.value)

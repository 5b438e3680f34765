"""SIGTERM and Ctrl-C."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sniper.training.interrupts import StopRequest, stopped

pytestmark = pytest.mark.usefixtures("ctrl_c")


def _handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_updates_is_remembered(number):
    before = _handlers()
    stop = StopRequest()
    with stop.listen(), stop.updates():
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert _handlers() == [signal.SIG_DFL] * 2, "the second one ends the process"
    assert _handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_elsewhere_it_interrupts_at_once(number):
    before = _handlers()
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop.listen():
        with stop.updates():
            pass
        os.kill(os.getpid(), number)
        time.sleep(5)
        pytest.fail("it went on")
    assert _handlers() == before


def test_an_ignored_ctrl_c_stays_ignored(caplog, monkeypatch):
    """As in a script's `command &`: Ctrl-C of what runs in the foreground is not for this run."""
    monkeypatch.setattr(logging.getLogger("sniper"), "propagate", True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = _handlers()
    stop = StopRequest()
    with caplog.at_level("INFO", "sniper"), stop.listen(), stop.updates():
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
        assert f"`kill {os.getpid()}` stops it in good order" in caplog.text
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert _handlers() == [signal.SIG_IGN, signal.SIG_DFL], "SIGTERM once more ends the process"
    assert _handlers() == before


def test_other_threads_leave_the_signals_alone():
    before, seen = _handlers(), []

    def run():
        with StopRequest().listen():
            seen.append(_handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [before]


def test_a_second_signal_quits_at_once():
    code = (
        "import os, signal, time\n"
        "from sniper.training.interrupts import StopRequest\n"
        "stop = StopRequest()\n"
        "with stop.listen(), stop.updates():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('once', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('twice', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stdout == b"once\n"


def test_the_message_says_how_to_go_on():
    assert "--resume" in str(stopped("SNIPER-update-0004.params"))
    assert "SNIPER-update-0004.params" in str(stopped("SNIPER-update-0004.params"))
    assert "--resume" not in str(stopped(None))

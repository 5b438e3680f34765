"""What somebody meets who has just got the files: no environment, no Python, a closed pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(command, folder, **environment):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env={**variables, **environment}, capture_output=True, text=True
    )


@pytest.fixture
def checkout(tmp_path):
    """The programs without the package and without an environment."""
    for name in ("main_train.py", "main_test.py", "demo.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


@pytest.mark.parametrize("program", ["main_train.py", "main_test.py", "demo.py"])
def test_a_program_without_the_package_says_what_to_run(checkout, program):
    # -S: an interpreter that has no package at all.
    command = [sys.executable, "-S", program, "--help"]
    done = _run(command, checkout)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "bash scripts/quickstart.sh" in done.stderr
    environment = checkout / ".venv" / "bin" / "python"
    environment.parent.mkdir(parents=True)
    environment.touch()
    assert f".venv/bin/python {program} --help" in _run(command, checkout).stderr


def test_without_a_python_there_is_one_message(checkout):
    (checkout / "lib" / "sniper" / "native").mkdir(parents=True)
    for name in ("requirements.txt", "setup.py", "pyproject.toml"):
        (checkout / name).touch()
    done = _run(["bash", "scripts/quickstart.sh"], checkout, PYTHON="no-such-python")
    assert done.returncode == 1
    message = [line for line in done.stderr.splitlines() if line]
    assert len(message) == 1 and message[0].startswith("No Python 3.9 to 3.12"), done.stderr


_INSTALL = """
. scripts/environment.sh
mkdir -p .venv
pip() { echo "  Downloading numpy-1.26.4.whl (18 MB)"; echo "no such version" >&2; return $1; }
announce_packages pip 0; echo "code $?"
announce_packages pip 7; echo "code $?"
"""


def test_installing_shows_each_package_and_the_errors(checkout):
    done = _run(["bash", "-c", _INSTALL], checkout)
    assert done.stdout.count("   numpy-1.26.4.whl (18 MB)") >= 1
    assert "code 0" in done.stdout and "code 1" in done.stdout
    assert done.stderr.count("no such version") == 1


@pytest.mark.parametrize("arguments", ["--help", "print-config --doc", "train --help"])
def test_a_closed_pipe_is_no_error(arguments):
    program = f"{sys.executable} -m sniper.tools.cli {arguments}"
    # `true` reads nothing, and is gone long before Python writes.
    done = _run(["bash", "-c", f"{program} | true"], ROOT, PYTHONPATH=str(ROOT / "lib"))
    assert done.stderr == ""

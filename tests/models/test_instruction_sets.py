"""Numbers of networks on a lesser processor: the kernels are limited in a process of their own.

`DNNL_MAX_CPU_ISA` is oneDNN's limit (its other names, MKLDNN_ and ONEDNN_, do nothing in MXNet
1.9.1), `SNIPER_MAX_ISA` that of our operators.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
MODULES = ["tests/models", "tests/training/test_stepper_devices.py"]
TIMEOUT_S = 280
# Any call makes oneDNN say what it uses.
SAY_ISA = "import sniper, mxnet as mx; mx.nd.softmax(mx.nd.ones((2, 2))).wait_to_read()"


def run_python(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPO, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def onednn_isa(**environment):
    """Such as "Intel AVX2"."""
    return re.search("isa:(.*)", run_python("-c", SAY_ISA, DNNL_VERBOSE="1", **environment))[1]


def test_networks_with_fewer_instructions():
    """With AVX2 on larger processors; on others, where that is the suite itself, without."""
    limits = {"DNNL_MAX_CPU_ISA": "AVX2", "SNIPER_MAX_ISA": "avx2"}
    here = onednn_isa()
    if onednn_isa(**limits) == here:
        limits = {"DNNL_MAX_CPU_ISA": "SSE41", "SNIPER_MAX_ISA": "baseline"}
        assert onednn_isa(**limits) != here
    options = ["-m", "instruction_sets", "-q", "-p", "no:cacheprovider"]
    told = run_python("-m", "pytest", *options, *MODULES, **limits)
    assert int(re.search(r"(\d+) passed", told)[1]) > 20, told

"""The limit of the instruction set, and equal bits on each: one child process per instruction set
runs every kernel, since the limit is read when the kernels are loaded.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "lib"
NATIVE = LIBRARY / "sniper" / "native"
ALL = ["avx512", "avx2", "baseline"]
ISA = "from sniper import native; print(native.isa())"
LOOP = """
#include "common/isa.h"
SNIPER_ALWAYS_INLINE void add(const float* a, const float* b, float* sum) {
  for (int i = 0; i < 4096; ++i) sum[i] = a[i] + b[i];
}
void use(const float* a, const float* b, float* sum) { sniper::per_isa<add>(a, b, sum); }
"""


def run_python(*arguments, limit=None):
    """A child process with this SNIPER_MAX_ISA; None leaves it unset."""
    environment = {key: value for key, value in os.environ.items() if key != "SNIPER_MAX_ISA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(LIBRARY), str(ROOT)])
    if limit is not None:
        environment["SNIPER_MAX_ISA"] = limit
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip


def isa_under(limit):
    done = run_python("-c", ISA, limit=limit)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def best():
    """What this processor has."""
    return isa_under(None)


def test_the_limit_is_a_limit(best):
    """Above what the processor has, it changes nothing."""
    for limit in ALL:
        assert isa_under(limit) == max(limit, best, key=ALL.index)
    assert isa_under("") == best


def test_every_kernel_and_operator_has_equal_bits_on_each(best):
    reports = {}
    for limit in ALL[ALL.index(best) :]:
        done = run_python("-m", "tests.native.isa_digests", limit=limit)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["isa"] == limit
        reports[limit] = report["digests"]
    wanted = reports[best]
    assert len(wanted) > 300 and len(set(wanted.values())) > 0.9 * len(wanted)
    for limit, digests in reports.items():
        # Fused multiply-add, which the baseline does not have, is a rounding less.
        of_products = ("graph deformable_convolution", "graph winograd_convolution")
        may_differ = of_products if limit == "baseline" != best else ()
        differ = [
            case
            for case in wanted
            if digests[case] != wanted[case] and not case.startswith(may_differ)
        ]
        assert not differ, f"{limit} and {best} give other bits: {differ}"


@pytest.mark.parametrize(
    "load",
    [
        "from sniper.native import _native",
        "from sniper import ops; ops.load_library()",
        "import sniper.ops.library as library\n"
        "library.mx.library.load(str(library.library_path()), verbose=False)",
    ],
)
def test_a_limit_that_is_none_is_refused(load):
    done = run_python("-c", load, limit="AVX-2")
    assert done.returncode == 1
    message = (
        "The environment variable SNIPER_MAX_ISA is 'AVX-2', expected avx512, avx2 or baseline"
    )
    assert message in done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has several copies")
def test_each_copy_is_compiled_for_its_instruction_set(tmp_path):
    compiler, objdump = os.environ.get("CXX") or shutil.which("g++"), shutil.which("objdump")
    if compiler is None or objdump is None:
        pytest.skip("no C++ compiler or no objdump here")
    (tmp_path / "loop.cc").write_text(LOOP, encoding="utf-8")
    subprocess.run(
        [compiler, "-std=c++17", "-O3", f"-I{NATIVE}", "-c", "loop.cc", "-o", "loop.o"],
        cwd=tmp_path, check=True, timeout=120,
    )  # fmt: skip
    listing = subprocess.run(
        [objdump, "-dC", "--no-show-raw-insn", "loop.o"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    copies = dict(re.findall(r"<.*PerIsa<.*>::(\w+)\(.*\)>:\n((?:.+\n)+)", listing))
    registers = {isa: set(re.findall(r"%([xyz])mm", code)) for isa, code in copies.items()}
    assert registers["baseline"] == {"x"}
    assert "y" in registers["avx2"] and "z" not in registers["avx2"]
    assert "z" in registers["avx512"] or "y" in registers["avx512"]

"""The CUDA sources compile with nvcc, and the build script says what is wrong."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import build_cuda

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "scripts" / "build_cuda.py"
NATIVE = REPO / "lib" / "sniper" / "native"


def launchers():
    """Names of all exported functions, from their declarations."""
    text = "".join(path.read_text(encoding="utf-8") for path in NATIVE.glob("*/*.h"))
    return set(re.findall(r"^SNIPER_CUDA_API [\w\s]+?\*?\s?(sniper_\w+)\(", text, re.MULTILINE))


def fake_nvcc(folder, release="11.8", architectures=(60, 70, 75, 80, 86, 87, 89, 90), code=0):
    """A compiler that only answers questions."""
    path = folder / "nvcc"
    listing = "\n".join(f"compute_{number}" for number in architectures)
    path.write_text(
        "#!/bin/sh\n"
        f'case "$1" in\n--version) echo "Cuda compilation tools, release {release}, V1" ;;\n'
        f'--list-gpu-arch) echo "{listing}" ;;\n*) echo "fatal: $*" >&2; exit 3 ;;\nesac\n'
        f"exit {code}\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_every_operator_has_launchers_and_cpu_twins():
    names = launchers()
    operators = {path.parent.name for path in NATIVE.glob("*/*_mxnet.cc")} - {"common"}
    operators -= {"deformable_convolution", "winograd_convolution"}  # GPUs have MXNet's
    assert {f"sniper_{op}_forward" for op in operators} <= names
    assert {f"sniper_{op}_workspace" for op in operators} <= names
    assert len(operators) == 10


def test_emulated_library_has_every_launcher(emulated_cuda):
    assert emulated_cuda.device.build_errors == ""
    for name in launchers():
        assert emulated_cuda.function(name)


@pytest.mark.parametrize("variable", ["NVCC", "NVCC_11"])
def test_sources_compile_with_nvcc(variable, cuda_build_folder, no_gpu_reason, monkeypatch):
    """For one architecture, unoptimised; NVCC_11 may name a second, older compiler."""
    quick = ["-O0" if flag == "-O3" else flag for flag in build_cuda.FLAGS]
    monkeypatch.setattr(build_cuda, "FLAGS", [*quick, "-Xcicc", "-O0", "-Xptxas", "-O0"])
    compiler = os.environ.get(variable) or ("nvcc" if variable == "NVCC" else "")
    nvcc = shutil.which(compiler) if compiler else None
    if nvcc is None:
        pytest.skip(f"no CUDA compiler: {compiler or 'environment variable ' + variable} not found")
    folder = cuda_build_folder.parent / f"sniper_cuda_{variable.lower()}"
    folder.mkdir(exist_ok=True)
    library = folder / "libsniper_cuda.so"
    build_cuda.build_library(nvcc, [build_cuda.choose_architectures(nvcc, "")[1]], library, folder)
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r" T (\S+)", exported)) == launchers()
    loaded = ctypes.CDLL(str(library))
    loaded.sniper_cuda_error_text.restype = ctypes.c_char_p
    assert loaded.sniper_cuda_error_text(2) == b"out of memory"
    if no_gpu_reason:  # a call fails, and does not end the process
        assert loaded.sniper_cuda_zero(None, ctypes.c_size_t(4), None) != 0


def test_gpu_is_tested_where_there_is_one(no_gpu_reason):
    """Judged by the files that the build and the driver make."""
    is_built = build_cuda.LIBRARY.is_file()
    assert is_built == ("not built" not in no_gpu_reason)
    if is_built and any(Path("/dev").glob("nvidia[0-9]*")):
        assert no_gpu_reason == ""


def test_architectures_are_those_that_the_compiler_knows(tmp_path):
    choose = build_cuda.choose_architectures
    nvcc = fake_nvcc(tmp_path)
    assert choose(nvcc, "") == [60, 70, 75, 80, 86, 89, 90]
    assert choose(nvcc, "8.6, 70;sm_75 compute_87") == [70, 75, 86, 87]
    nvcc = fake_nvcc(tmp_path, "13.0", (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121))
    assert choose(nvcc, " ") == [75, 80, 86, 89, 90, 100, 120]
    assert choose(fake_nvcc(tmp_path, "11.0", ()), "") == [60, 70, 75, 80]
    nvcc = fake_nvcc(tmp_path, "13.0", (75, 80))
    for wrong in ("70", "sm", "8.66", "75-80", "-1"):
        with pytest.raises(build_cuda.BuildError, match="it knows 75, 80") as error:
            choose(nvcc, wrong)
        assert repr(wrong) in str(error.value)


def test_newest_architecture_comes_as_ptx_too():
    assert build_cuda.architecture_flags([70, 90]) == [
        "-gencode=arch=compute_70,code=sm_70",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]


def run_script(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("compiler", ["", "/no/such/nvcc"])
def test_without_a_compiler_the_error_is_a_sentence(compiler, tmp_path):
    done = run_script(NVCC=compiler, PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: The CUDA kernels need NVIDIA's compiler, and there is no {compiler or 'nvcc'!r}: "
        "install the CUDA toolkit and put its nvcc on PATH, or name it in the environment variable "
        "NVCC.\n"
    )


def test_a_compiler_that_fails_is_quoted_and_leaves_no_library(tmp_path):
    output = tmp_path / "library.so"
    done = run_script(
        "--output", str(output), "--build-folder", str(tmp_path / "build"), NVCC=fake_nvcc(tmp_path)
    )
    assert done.returncode == 1
    assert "nvcc 11.8, building for sm_60 sm_70" in done.stdout
    assert "PTX compute_90" in done.stdout
    assert "fatal: -std=c++17" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_program_that_is_no_nvcc_is_refused(tmp_path):
    done = run_script(NVCC=shutil.which("true"))
    assert done.returncode == 1
    assert "it is not NVIDIA's compiler" in done.stderr or "names no release" in done.stderr
    done = run_script(NVCC=fake_nvcc(tmp_path, code=4))
    assert done.returncode == 1
    assert "--list-gpu-arch failed" in done.stderr or "--version failed" in done.stderr


def test_unknown_architecture_in_the_environment(tmp_path):
    done = run_script(NVCC=fake_nvcc(tmp_path), SNIPER_CUDA_ARCHS="12")
    assert done.returncode == 1
    assert "nvcc 11.8 builds for no architecture '12'; it knows 60, 70" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(["--help"], 0, "--cuda    build the CUDA kernels"), (["--cdua"], 2, "option '--cdua'")],
)
def test_options_of_compile_sh(arguments, code, text):
    done = subprocess.run(
        ["bash", str(REPO / "scripts" / "compile.sh"), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert text in done.stdout + done.stderr

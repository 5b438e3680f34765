"""Compiles the CUDA sources for the host emulation and the CPU kernels as their reference, and
checks the tests' structs against the C++ ones.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import fcntl
import hashlib
import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
EMULATION = HERE / "cuda_emulation"
NATIVE = HERE.parents[1] / "lib" / "sniper" / "native"
FLAGS = [
    "-DSNIPER_CUDA_EMULATION", "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC",
    "-fvisibility=hidden", "-U_FORTIFY_SOURCE", f"-I{NATIVE}", f"-I{EMULATION}",
]  # fmt: skip
REFERENCE = HERE / "cpu_reference" / "cpu_reference.cc"
# The reference has the bits of the operators on the CPU, which do not depend on optimisation: it
# does not contract either.
REFERENCE_FLAGS = [
    "-std=c++17", "-O1", "-fopenmp", "-ffp-contract=off", "-fno-trapping-math", "-fPIC",
    "-fvisibility=hidden", f"-I{NATIVE}",
]  # fmt: skip
OLD_S = 3600.0  # objects in the cache that nobody used for so long are removed


class LaunchError(RuntimeError):
    """A launcher returned an error, or its run broke a rule."""


def content_hash(*paths, flags=FLAGS):
    digest = hashlib.sha256(" ".join(flags).replace(str(HERE.parents[1]), "").encode())
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def run_compiler(arguments, target):
    """Writes `target` at once, so that a parallel test run never sees half a file."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    command = [os.environ.get("CXX", "g++"), *map(str, arguments), "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode != 0:
        return done.stderr
    os.replace(partial, target)
    return ""


@contextlib.contextmanager
def only_here(target):
    """Parallel test runs wait for each other, and the second one finds what the first has made."""
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_emulated(folder, sources=None):
    """Library of all CUDA sources for the host, and what the compiler said about the others."""
    if sources is None:
        sources = sorted(NATIVE.glob("*/*_cuda.cu"))
    sources = [*sorted(EMULATION.glob("cuda_*.cc")), *sources]
    headers = sorted([*NATIVE.glob("*/*.h"), *NATIVE.glob("*/*.cuh"), *EMULATION.glob("*.h")])
    return build_library(folder, "cuda_emulated", sources, headers, FLAGS)


def build_reference(folder):
    """Library of the CPU kernels with the signatures of the CUDA launchers.

    Raises:
        LaunchError: it does not compile.
    """
    operators = {path.parent for path in NATIVE.glob("*/*_cuda.cu")}
    sources = [REFERENCE, *sorted(p for folder in operators for p in folder.glob("*_cpu.cc"))]
    library, errors = build_library(
        folder, "cpu_reference", sources, sorted(NATIVE.glob("*/*.h")), REFERENCE_FLAGS
    )
    if errors:
        raise LaunchError(f"The CPU kernels do not compile:\n{errors}")
    return library


def build_library(folder, name, sources, headers, flags):
    """Compiles what is not in `folder` yet; the library's path and the compiler's errors."""
    objects = [
        folder / f"{path.stem}-{content_hash(path, *headers, flags=flags)}.o" for path in sources
    ]

    def compile_one(source, target):
        with only_here(target):
            if target.is_file():
                os.utime(target)
                return ""
            return run_compiler([*flags, "-c", "-x", "c++", source], target)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = [error for error in pool.map(compile_one, sources, objects) if error]
    objects = [path for path in objects if path.is_file()]
    library = folder / f"libsniper_{name}-{content_hash(*objects, flags=flags)}.so"
    if not library.is_file():
        openmp = [flag for flag in flags if flag == "-fopenmp"]
        failed = run_compiler(["-shared", *openmp, *objects], library)
        if failed:
            raise LaunchError(f"The library {name} does not link:\n{failed}")
    for path in folder.iterdir():
        if path not in objects and path != library and path.stat().st_mtime < time.time() - OLD_S:
            path.unlink(missing_ok=True)
    return library, "\n".join(errors)


def layout_asserts(cpp_type, structure, path=""):
    """static_assert lines: the C++ struct has the size and the offsets of the ctypes one."""
    if not path:
        yield f'static_assert(sizeof({cpp_type}) == {ctypes.sizeof(structure)}, "size");'
    for name, kind in structure._fields_:
        field = getattr(structure, name)
        member = f"{path}{name}"
        yield f'static_assert(sizeof({cpp_type}::{name}) == {field.size}, "{member}");'
        yield f'static_assert(offsetof({cpp_type}, {name}) == {field.offset}, "{member}");'
        if isinstance(kind, type) and issubclass(kind, ctypes.Structure):
            yield from layout_asserts(f"decltype({cpp_type}::{name})", kind, f"{member}.")


def check_layouts(folder, header, structures):
    """Compiles the comparison of ctypes structures with the C++ structs of `header`.

    Args:
        folder: where the check may write a file.
        header: path below lib/sniper/native.
        structures: C++ name (without the namespace) of each structure.

    Raises:
        LaunchError: they differ; the text is the compiler's.
    """
    lines = ["#include <cstddef>", f'#include "{header}"']
    for name, structure in structures.items():
        lines += layout_asserts(f"sniper::{name}", structure)
    source = Path(folder) / "layout.cc"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    errors = run_compiler([*FLAGS, "-Wno-invalid-offsetof", "-c", source], source.with_suffix(".o"))
    if errors:
        raise LaunchError(f"{header} and the test's structures differ:\n{errors}")

#!/usr/bin/env python3
"""Builds lib/sniper/native/libsniper_cuda.so, the CUDA kernels of the operators, with nvcc.

Normally called by `bash scripts/compile.sh --cuda`. Needs nvcc 11 or newer and its host compiler,
no GPU, and no Python package.

    NVCC               the compiler, when it is not the `nvcc` on PATH
    SNIPER_CUDA_ARCHS  architectures to build for, such as "70 75" or "8.6", instead of all that
                       the compiler knows of 60 70 75 80 86 89 90 100 120
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "lib" / "sniper" / "native"
LIBRARY = NATIVE / "libsniper_cuda.so"
BUILD = ROOT / "build" / "cuda"
# One per generation and variant that differs in speed; other GPUs run the code of an older minor
# version, and future ones compile the PTX of the newest when they first load it.
ARCHITECTURES = (60, 70, 75, 80, 86, 89, 90, 100, 120)
# -fmad=false: the CPU kernels do not contract either, so both give the same bits.
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall"]


class BuildError(Exception):
    """The library cannot be built; the text says why and what to do."""


def find_nvcc() -> str:
    """$NVCC, else the nvcc on PATH."""
    name = os.environ.get("NVCC") or "nvcc"
    path = shutil.which(name)
    if path is None:
        raise BuildError(
            f"The CUDA kernels need NVIDIA's compiler, and there is no {name!r}: install the CUDA "
            "toolkit and put its nvcc on PATH, or name it in the environment variable NVCC."
        )
    return path


def ask_nvcc(nvcc: str, *arguments: str) -> str:
    """What nvcc prints."""
    try:
        done = subprocess.run(
            [nvcc, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{nvcc} does not run: {error}.") from error
    if done.returncode != 0:
        raise BuildError(f"{nvcc} {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


def nvcc_version(nvcc: str) -> str:
    """Such as "11.8"."""
    match = re.search(r"release (\d+\.\d+)", ask_nvcc(nvcc, "--version"))
    if match is None:
        raise BuildError(f"{nvcc} --version names no release: it is not NVIDIA's compiler.")
    return match.group(1)


def known_architectures(nvcc: str) -> set[int]:
    """What the compiler builds for; release 11.0 cannot list it."""
    if nvcc_version(nvcc) == "11.0":
        return {60, 61, 62, 70, 72, 75, 80}
    listing = ask_nvcc(nvcc, "--list-gpu-arch")
    return {int(number) for number in re.findall(r"compute_(\d+)$", listing, re.MULTILINE)}


def choose_architectures(nvcc: str, wanted: str) -> list[int]:
    """Those of `wanted` (all of ARCHITECTURES when empty), ascending; refuses unknown ones."""
    known = known_architectures(nvcc)
    if not wanted.strip():
        return [number for number in ARCHITECTURES if number in known]
    numbers = set()
    for word in re.split(r"[\s,;]+", wanted.strip()):
        match = re.fullmatch(r"(?:sm_|compute_)?(\d+)(?:\.(\d))?", word)
        number = int("".join(filter(None, match.groups()))) if match else -1
        if number not in known:
            raise BuildError(
                f"nvcc {nvcc_version(nvcc)} builds for no architecture {word!r}; it knows "
                f"{', '.join(map(str, sorted(known)))}."
            )
        numbers.add(number)
    return sorted(numbers)


def architecture_flags(architectures: list[int]) -> list[str]:
    """Machine code for every architecture, and PTX of the newest."""
    pairs = [(number, f"sm_{number}") for number in architectures]
    pairs.append((architectures[-1], f"compute_{architectures[-1]}"))
    return [f"-gencode=arch=compute_{number},code={code}" for number, code in pairs]


def run(command: list[str]) -> None:
    """Runs the compiler; its words go into the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    if done.stderr.strip():
        print(done.stderr, file=sys.stderr)


def compile_sources(nvcc: str, flags: list[str], folder: Path, force: bool) -> list[Path]:
    """Objects of all CUDA sources; what is newer than its sources and headers is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "command.txt"
    command = " ".join([nvcc, nvcc_version(nvcc), *flags])
    force = force or not record.is_file() or record.read_text(encoding="utf-8") != command
    record.write_text(command, encoding="utf-8")
    headers = [*NATIVE.glob("*/*.h"), *NATIVE.glob("*/*.cuh")]
    newest_header = max(path.stat().st_mtime for path in headers)

    def build(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        newest = max(newest_header, source.stat().st_mtime)
        if force or not target.is_file() or target.stat().st_mtime < newest:
            partial = target.with_suffix(".partial.o")
            run([nvcc, *flags, f"-I{NATIVE}", "-c", str(source), "-o", str(partial)])
            os.replace(partial, target)
        return target

    # The slowest first, which is the one with CUB.
    sources = sorted(
        NATIVE.glob("*/*_cuda.cu"), key=lambda path: (path.parent.name != "common", path)
    )
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build, sources))


def build_library(
    nvcc: str, architectures: list[int], library: Path, folder: Path, force: bool = False
) -> None:
    """Compiles and links; `library` appears at once, when it is complete.

    Raises:
        BuildError: nvcc fails.
    """
    flags = [*FLAGS, *architecture_flags(architectures)]
    objects = compile_sources(nvcc, flags, folder, force)
    partial = library.with_name(f"{library.name}.partial")
    run([
        nvcc, "-shared", "-cudart", "static", "-Xlinker", "--exclude-libs,ALL",
        *architecture_flags(architectures), *map(str, objects), "-o", str(partial),
    ])  # fmt: skip
    os.replace(partial, library)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--force", action="store_true", help="compile what is up to date, too")
    parser.add_argument("--output", type=Path, default=LIBRARY, help="the library to write")
    parser.add_argument("--build-folder", type=Path, default=BUILD, help="place of the objects")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        nvcc = find_nvcc()
        architectures = choose_architectures(nvcc, os.environ.get("SNIPER_CUDA_ARCHS", ""))
        version = nvcc_version(nvcc)
        names = " ".join(f"sm_{number}" for number in architectures)
        print(f"nvcc {version}, building for {names}, PTX compute_{architectures[-1]}", flush=True)
        build_library(nvcc, architectures, options.output, options.build_folder, options.force)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size_mb = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size_mb:.1f} MB, built in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

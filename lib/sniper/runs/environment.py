"""What the numbers of a run depend on besides its settings and data: machine, packages, code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import mxnet as mx

import sniper
from sniper.data.cache import file_sha256
from sniper.models.int8_support import CPU_INFO
from sniper.process import usable_cores
from sniper.runs.devices import Device

THREADS = "OMP_NUM_THREADS"
# Of a SHA-256: enough that no two files of a run share them by chance.
HASH_CHARACTERS = 16

# Distributions whose version can change a number; of those that are installed.
_PACKAGES = (
    *("mxnet", "mxnet-cu110", "mxnet-cu112", "numpy", "opencv-python-headless", "opencv-python"),
    *("pycocotools", "PyYAML", "easydict", "Cython"),
)
# Instructions that MXNet, oneDNN, NumPy, OpenCV or our kernels choose code by.
_INSTRUCTIONS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "asimd", "sve"),
)
_VARIABLES = (
    "MXNET_",
    "OMP_",
    "KMP_",
    "MKL_",
    "DNNL_",
    "MKLDNN_",
    "OPENBLAS_",
    "OPENCV_",
    "SNIPER_",
)
# What says where a process is, and not how it computes.
_NOT_DECISIVE = ("SNIPER_SHARED", "SNIPER_DEBUG", "SNIPER_WORKER_RANK", "SNIPER_LAUNCH_TIMEOUT")
_CODE = (".py", ".so")


def environment(devices: Sequence[Device]) -> dict[str, str]:
    """Name and value of everything that can change the bits of a training on this machine.

    Args:
        devices: where the run trains.
    """
    model, flags = _processor()
    return {
        "processor": model,
        "instructions": " ".join(name for name in _INSTRUCTIONS if name in flags),
        "cores": str(usable_cores()),
        "threads": os.environ.get(THREADS, ""),
        "devices": ", ".join(map(str, devices)),
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        "python": platform.python_version(),
        **{f"package {name}": version for name, version in _versions()},
        "MXNet built with": " ".join(sorted(_features())),
        **{f"variable {name}": value for name, value in _variables()},
    }


def code_files() -> dict[str, str]:
    """Path below the package -> the first characters of its SHA-256, of all its code."""
    package = Path(sniper.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.suffix in _CODE)
    return {
        path.relative_to(package).as_posix(): file_sha256(path)[:HASH_CHARACTERS] for path in files
    }


def combined_sha256(parts: Iterable[str]) -> str:
    """One digest of several texts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _features() -> Iterable[str]:
    features = mx.runtime.Features()
    return (name for name in features if features.is_enabled(name))


def _variables() -> Iterable[tuple[str, str]]:
    for name, value in sorted(os.environ.items()):
        decisive = name.startswith(_VARIABLES) and name not in _NOT_DECISIVE
        if decisive and name != THREADS:
            yield name, value


def _processor() -> tuple[str, frozenset[str]]:
    """Its name, and the names of its instructions; what the system says where it tells neither."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = dict(_fact(line) for line in reversed(lines) if ":" in line)
    model = facts.get("model name") or platform.processor() or platform.machine()
    return model, frozenset(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())


def _fact(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()

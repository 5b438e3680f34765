"""`sniper doctor`: checks the installation, line by line, and names the command that mends it.

Nothing here is imported before it is checked: the doctor works when MXNet, OpenCV or the compiled
libraries are missing or broken.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import sniper
from sniper.errors import SniperError
from sniper.inference.onnx_engines import ENGINES, installed_engines
from sniper.models.int8_support import (
    WITH_INSTRUCTIONS,
    WITHOUT_INSTRUCTIONS,
    has_int8_instructions,
)
from sniper.process import is_installed, usable_cores
from sniper.tools.cli import run_main

MEND_PYTHON = "pip install -r requirements.txt"
MEND_NATIVE = "bash scripts/compile.sh"
MEND_CUDA = "bash scripts/compile.sh --cuda"
CUDA_LIBRARY = Path(sniper.__file__).with_name("native") / "libsniper_cuda.so"
OPERATORS = CUDA_LIBRARY.with_name("libsniper_ops.so")

# What a broken installation raises: missing files and symbols, wrong versions, wrong results.
_FAILURES = (
    SniperError,
    ImportError,
    OSError,
    RuntimeError,
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AssertionError,
)
_PACKAGES = (
    ("MXNet", "mxnet"),
    ("NumPy", "numpy"),
    ("OpenCV", "cv2"),
    ("pycocotools", "pycocotools.mask"),
    ("PyYAML", "yaml"),
    ("EasyDict", "easydict"),
)
# What evaluates COCO sets, as `sniper.evaluation.evaluators` chooses, and beside pycocotools.
_EVALUATORS = ("hotcoco", "faster_coco_eval")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MXNET_CPU_WORKER_NTHREADS")
_MAX_ISA = "SNIPER_MAX_ISA"  # the limit of the kernels' instruction set
_OLDEST_PYTHON = (3, 9)


@dataclass(frozen=True)
class Check:
    """One line of the report; `mend` is the command to run when it is not ok."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; 0 when everything works, else 1."""
    return run_main(_main, argv)


def _main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sniper doctor",
        description="Check versions, devices, compiled libraries and operators.",
    )
    parser.parse_args(argv)
    # A library that was built for another machine can kill the process: show where.
    if not faulthandler.is_enabled() and _has_file_descriptor():
        faulthandler.enable()
    failed = []
    for check in run_checks():
        print(f"{'OK' if check.ok else 'FAILED':<7} {check.name}: {check.detail}", flush=True)
        if not check.ok:
            failed.append(check)
    return _conclude(failed)


def _has_file_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError):  # stderr is captured or closed
        return False
    return True


def _conclude(failed: Sequence[Check]) -> int:
    if not failed:
        print("Everything works.")
        return 0
    # Missing packages come first: the compiled parts cannot be checked without them.
    commands = [check.mend for check in failed if check.mend]
    mend = MEND_PYTHON if MEND_PYTHON in commands else next(iter(commands), "")
    print(f"{len(failed)} check(s) failed." + (f" To mend: {mend}" if mend else ""))
    return 1


def run_checks() -> Iterator[Check]:
    """All checks, in the order of the report; a check runs when it is asked for."""
    yield Check("sniper", True, sniper.__version__)
    yield _python()
    modules: dict[str, ModuleType | None] = {}
    # Built without MXNet on purpose.
    detects_only = not (is_installed("mxnet") or OPERATORS.is_file()) and bool(installed_engines())
    for title, name in _PACKAGES:
        if name == "mxnet" and detects_only:
            yield Check(title, True, "not installed: nothing can be trained, and of detectors only "
                        "archives of `sniper export --format onnx` run")  # fmt: skip
            continue
        modules[name], check = _package(title, name, any_numpy=detects_only)
        yield check
    yield _evaluator()
    yield _threads()
    if not detects_only:
        yield _int8()
    yield from _onnx_engines()
    mxnet = modules.get("mxnet")
    if mxnet is not None:
        yield from _devices(mxnet)
    yield _native_functions()
    if detects_only:
        return
    library = _operator_library()
    yield library
    if library.ok:
        yield from _self_tests()


def _python() -> Check:
    return Check(
        "Python",
        sys.version_info[:2] >= _OLDEST_PYTHON,
        f"{platform.python_version()} at {sys.executable}, needs 3.9 or later",
        "install Python 3.11",
    )


def _package(title: str, name: str, *, any_numpy: bool = False) -> tuple[ModuleType | None, Check]:
    try:
        module = importlib.import_module(name)
    except _FAILURES as error:
        return None, Check(title, False, _reason(error), MEND_PYTHON)
    version = str(getattr(module, "__version__", "") or _installed_version(name))
    if name == "numpy" and not any_numpy and int(version.split(".")[0]) >= 2:
        detail = f"{version}, but MXNet 1.9.1 needs a version below 2"
        return module, Check(title, False, detail, MEND_PYTHON)
    return module, Check(title, True, version)


def _evaluator() -> Check:
    """Who counts in evaluations of COCO sets; the fast ones are not needed."""
    for name in _EVALUATORS:
        _, check = _package("COCO evaluation", name)
        if check.ok:
            return replace(check, detail=f"by {name.replace('_', '-')} {check.detail}")
    names = " or ".join(_EVALUATORS).replace("_", "-")
    return Check("COCO evaluation", True, f"by pycocotools ({names} is faster, and not installed)")


def _installed_version(name: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return metadata.version(name.split(".")[0])
    except metadata.PackageNotFoundError:
        return "version unknown"


def _threads() -> Check:
    settings = [f"{name}={os.environ.get(name, 'unset')}" for name in _THREAD_VARIABLES]
    detail = ", ".join([f"{usable_cores()} usable core(s) on {platform.machine()}", *settings])
    return Check("CPU", True, detail)


def _int8() -> Check:
    return Check(
        "INT8 in MXNet",
        True,
        WITH_INSTRUCTIONS if has_int8_instructions() else WITHOUT_INSTRUCTIONS,
    )


def _onnx_engines() -> Iterator[Check]:
    """The engines of detectors without MXNet; they are not needed."""
    names = installed_engines()
    if not names:
        yield Check("ONNX engines", True, f"none of {', '.join(ENGINES)} (not needed)")
    for name in names:
        _, check = _package(f"ONNX engine {name}", name)
        default = ", taken unless TEST.ENGINE names another" if name == names[0] else ""
        yield replace(check, detail=f"{check.detail}{default}")


def _devices(mxnet: ModuleType) -> Iterator[Check]:
    try:
        count = mxnet.context.num_gpus()
    except _FAILURES as error:  # a CUDA wheel on a machine without a driver
        yield Check("GPUs", True, f"none ({_reason(error)}); runs use the CPU")
        return
    if not count:
        yield Check("GPUs", True, "MXNet sees none; runs use the CPU (--set gpus cpu)")
        return
    yield Check("GPUs", True, f"MXNet sees {count}")
    found = CUDA_LIBRARY.is_file()
    detail = "built" if found else f"{CUDA_LIBRARY} is missing"
    yield Check("CUDA kernels", found, detail, MEND_CUDA)


def _native_functions() -> Check:
    def load() -> str:
        module = importlib.import_module("sniper.native._native")
        return f"{module.__file__}, instruction set {module.isa()}"

    check = _attempt("native functions", load, MEND_NATIVE)
    refused = not check.ok and _MAX_ISA in check.detail
    return replace(check, mend=f"unset {_MAX_ISA}") if refused else check


def _operator_library() -> Check:
    def load() -> str:
        importlib.import_module("sniper.ops").load_library()
        return "loaded into MXNet"

    return _attempt("operator library", load, MEND_NATIVE)


def _self_tests() -> Iterator[Check]:
    try:
        tests = importlib.import_module("sniper.ops.selftest").SELF_TESTS
    except _FAILURES as error:
        yield Check("operator self-tests", False, _reason(error), MEND_NATIVE)
        return
    for name, test in tests.items():
        yield _attempt(f"operator {name}", partial(_right_result, test), MEND_NATIVE)


def _right_result(test: Callable[[], None]) -> str:
    test()
    return "right result"


def _attempt(name: str, action: Callable[[], str], mend: str) -> Check:
    """Runs `action`, which returns the detail of the line; its failure becomes the check's."""
    try:
        return Check(name, True, action())
    except _FAILURES as error:
        module = error.name if isinstance(error, ModuleNotFoundError) else None
        is_package = module is not None and not module.startswith("sniper")
        return Check(name, False, _reason(error), MEND_PYTHON if is_package else mend)


def _reason(error: BaseException) -> str:
    first_line = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first_line[0]}" if first_line else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())

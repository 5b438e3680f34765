"""What a process needs before MXNet 1.9.1 is imported: one place, run by `import sniper`.

* NumPy 1.24 removed the aliases `np.bool`, `np.object`, ... that MXNet 1.9.1 still reads.
* Extension operators are never told the write request: with 8 or more uses of one variable MXNet
  sums gradients in place and the operator would overwrite them. A high cap turns that off.
* MXNet uses half of the cores that it finds; it is about 1.8x slower when OMP_NUM_THREADS is unset.
* `import mxnet` imports scikit-learn, SciPy's statistics and pandas where they are installed: half
  of its time, for a class and functions of old. It is told that they are not there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sniper.errors import TrainingError

GRAD_SUM_CAP = "MXNET_EXEC_INPLACE_GRAD_SUM_CAP"
SAFE_GRAD_SUM_CAP = 1000
OMP_NUM_THREADS = "OMP_NUM_THREADS"

_ALIASES = {"bool": bool, "object": object, "int": int, "float": float, "complex": complex}


def prepare_process() -> None:
    """Sets the aliases and the environment; keeps what the user has set, where that is safe."""
    for name, builtin in _ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, builtin)
    # The one variable that a lower value of the user's would turn into silently wrong gradients.
    cap = os.environ.get(GRAD_SUM_CAP, "")
    if not cap.isdigit() or int(cap) < SAFE_GRAD_SUM_CAP:
        os.environ[GRAD_SUM_CAP] = str(SAFE_GRAD_SUM_CAP)
    os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0")
    # Else every bind of an inference graph prints that oneDNN's fusion is on.
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
    _set_threads()
    if not any(isinstance(finder, _LeftOut) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LeftOut())


def _set_threads() -> None:
    """Gives MXNet a number of threads: it aborts at a list as OpenMP knows it, and at words."""
    asked, threads = os.environ.get(OMP_NUM_THREADS, ""), str(omp_threads())
    os.environ[OMP_NUM_THREADS] = threads
    if asked and not asked.split(",")[0].strip().isdigit():
        warnings.warn(
            f"{OMP_NUM_THREADS} is {asked!r}, which is no number: {threads} is taken", stacklevel=2
        )


class _LeftOut(MetaPathFinder):
    """Says that a package is not installed, to parts of MXNet alone, which then do without it."""

    asked_by: ClassVar = {
        "sklearn": ("mxnet.model",),
        "scipy.stats": ("mxnet.test_utils", "mxnet.contrib.quantization"),
    }

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises ImportError while these parts are imported; others get the usual answer."""
        for module in self.asked_by.get(fullname, ()):
            asking = getattr(sys.modules.get(module), "__spec__", None)
            if getattr(asking, "_initializing", False):
                raise ModuleNotFoundError(f"left out of the import of {module}", name=fullname)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def omp_threads() -> int:
    """Threads of an operator: `OMP_NUM_THREADS`, whose first number counts."""
    first = os.environ.get(OMP_NUM_THREADS, "").split(",")[0].strip()
    return max(int(first), 1) if first.isdigit() else usable_cores()


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


class HomeProcess:
    """The process that has made an object whose threads or devices a forked copy does not have."""

    def __init__(self) -> None:
        self._number = os.getpid()

    def check(self) -> None:
        """Raises TrainingError in a forked copy of the process, where waiting would never end."""
        if os.getpid() == self._number:
            return
        raise TrainingError(
            "this process was forked after the detector was made, and its threads stayed behind",
            got=f"made in process {self._number}, used in process {os.getpid()}",
            fix="make the Predictor after the fork: in a worker's first task or its start hook "
            "(gunicorn post_fork, Celery worker_process_init), or let processes be spawned",
        )


def start_logging(log_path: Path | None = None, level: int = logging.INFO) -> None:
    """Messages from `level` on go to stderr; with `log_path` all go to a file, details as well."""
    root = logging.getLogger("sniper")
    root.setLevel(level if log_path is None else min(level, logging.DEBUG))
    root.propagate = False
    # Called once per run: handlers of an earlier run in this process are replaced.
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setLevel(level)
    if log_path is not None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(log_path, encoding="utf-8"))
    formatter = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)


@contextlib.contextmanager
def warnings_only(*loggers: str) -> Iterator[None]:
    """While this runs, loggers of these names tell of nothing less than warnings."""
    before = [(logger := logging.getLogger(name), logger.level) for name in loggers]
    for logger, _ in before:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


class _LogFile(logging.FileHandler):
    """A full disk ends the file with one message, not with a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says what is wrong and gives up."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger("sniper").removeHandler(self)
        sys.stderr.write(f"{self.baseFilename} cannot be written any more: {error}\n")

"""TensorBoard curves, when a package that writes its files is installed."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

# (module, class): both take the folder first and have the same `add_scalar`. tensorboardX is small;
# the other one belongs to TensorBoard itself (and so to every PyTorch that can write its files).
_WRITERS = (("tensorboardX", "SummaryWriter"), ("tensorboard.summary", "Writer"))


class ScalarWriter(Protocol):
    """What the packages have in common."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a point to the curve `tag`."""

    def close(self) -> None:
        """Writes what is left."""


class TensorBoard:
    """Curves in `folder`; without an installed package, or on a full disk, it writes nothing."""

    def __init__(self, folder: Path) -> None:
        """Says once where the curves are, or how to get them."""
        self._writer = _open(folder)
        if self._writer is not None:
            logger.info("TensorBoard (pip install tensorboard): tensorboard --logdir %s", folder)

    def write(self, group: str, values: Mapping[str, float], update: int) -> None:
        """Adds one point to the curve `<group>/<name>` of every finite value."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                if math.isfinite(value):
                    self._writer.add_scalar(f"{group}/{name}", value, update)
        except OSError as error:  # a full disk ends the curves, not the run
            self._give_up(error)

    def close(self) -> None:
        """Writes what is left. Idempotent."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)
        self._writer = None

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.warning("TensorBoard files cannot be written any more: %s", error)


def _open(folder: Path) -> ScalarWriter | None:
    for module, name in _WRITERS:
        try:
            writer = getattr(importlib.import_module(module), name)
        except ImportError:
            continue
        try:
            return writer(str(folder))
        except OSError as error:
            logger.warning("TensorBoard files cannot be written: %s", error)
            return None
    logger.info("no TensorBoard curves: `pip install tensorboardX` brings them")
    return None

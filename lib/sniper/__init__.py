"""SNIPER: efficient multi-scale training of object detectors on stock MXNet.

Importing this package prepares the process for MXNet (see `sniper.process`) but does not
import MXNet itself, so that data workers stay small. `from sniper import Predictor` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sniper.process import prepare_process

if TYPE_CHECKING:
    from sniper.runs.predictor import Predictor

__all__ = ["Predictor", "__version__"]

__version__ = "0.1.0"

prepare_process()


def __getattr__(name: str) -> type[Predictor]:
    """Loads `Predictor`, and with it MXNet, when it is asked for."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sniper.runs.predictor import Predictor

    return Predictor

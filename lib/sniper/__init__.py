"""SNIPER: efficient multi-scale training of object detectors on stock MXNet.

    from sniper import Predictor, load_config, test, train

    train(load_config("sniper_res18_toy"))             # a recipe, or the path of a yml file
    report = test(load_config("sniper_res18_toy"))
    for found in Predictor("sniper_res18_toy").stream("photos"):
        print(found.name, found.filter(0.5).as_dict())

`sniper.chips` is a library of its own: the chips of SNIPER for other trainers.

Importing this package prepares the process for MXNet (see `sniper.process`) but does not import
MXNet itself, so that data workers stay small: the names above do when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sniper.process import prepare_process

if TYPE_CHECKING:
    from sniper.config import load_config
    from sniper.runs.predictor import Predictor
    from sniper.runs.test import test
    from sniper.runs.train import train

__all__ = ["Predictor", "__version__", "load_config", "test", "train"]

__version__ = "0.2.0"

_HOMES = {
    "Predictor": "sniper.runs.predictor",
    "load_config": "sniper.config",
    "test": "sniper.runs.test",
    "train": "sniper.runs.train",
}

prepare_process()


def __getattr__(name: str) -> Any:
    """Loads a public name, and what it needs, when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    hidden = {"Any", "TYPE_CHECKING", "annotations", "importlib", "prepare_process", "_HOMES"}
    return sorted({*globals(), *__all__} - hidden)

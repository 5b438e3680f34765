"""The weights to detect with, when the user names a recipe only, or nothing at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.config import load_config
from sniper.detection.test import weights_path
from sniper.errors import DataError
from sniper.setup.settings import model_folder

logger = logging.getLogger(__name__)

MODELS_FOLDER = Path("output")
HOW_TO_GET_WEIGHTS = (
    "bash scripts/quickstart.sh trains a small model in minutes; "
    "main_train.py --cfg F trains the model of a recipe"
)


def find_weights(
    cfg: EasyDict, save_prefix: str, fall_back: Sequence[str] | None
) -> tuple[EasyDict, Path]:
    """Weights and their configuration.

    Args:
        cfg: a configuration.
        save_prefix: stem of the checkpoint files.
        fall_back: when the configuration has no weights, take the newest model under `output/` with
            its own configuration and these overrides (KEY VALUE ...); None: do not.

    Raises:
        DataError: there are no weights.
    """
    try:
        return cfg, weights_path(cfg, save_prefix)
    except DataError:
        if fall_back is None:
            raise
    newest = newest_model(MODELS_FOLDER, save_prefix)
    if newest is None:
        raise DataError(
            f"the weights are missing, and no trained model was found under {MODELS_FOLDER}/",
            where=model_folder(cfg),
            fix=HOW_TO_GET_WEIGHTS,
        )
    logger.info("no weights for %s: using the newest trained model instead", cfg.name)
    return load_config(newest.parent / "config.yml", list(fall_back)), newest


def newest_model(folder: Path, save_prefix: str) -> Path | None:
    """Newest `.params` file below `folder` whose folder has a `config.yml`, or None."""
    found = [
        path
        for path in folder.glob(f"**/{save_prefix}-[0-9][0-9][0-9][0-9].params")
        if (path.parent / "config.yml").exists()
    ]
    return max(found, key=lambda path: (path.stat().st_mtime, path.name), default=None)

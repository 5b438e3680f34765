"""Detection on one picture: finds weights, detects, draws."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.config import load_config
from sniper.data.image import read_image
from sniper.engine.progress import start_logging
from sniper.engine.settings import contexts, model_folder
from sniper.engine.test import load_model, merge_settings, pyramid_detector, weights_path
from sniper.errors import DataError
from sniper.inference.predictor import Predictor
from sniper.vis.draw import draw_detections, save_image

logger = logging.getLogger(__name__)

DRAWING_THRESHOLD = 0.5
OUTPUT_FOLDER = Path("data/demo")

HOW_TO_GET_WEIGHTS = (
    "bash scripts/quickstart.sh trains a small model in minutes; "
    "main_train.py --cfg F trains the model of a recipe"
)


def demo(
    cfg: EasyDict,
    image_path: Path,
    *,
    save_prefix: str = "SNIPER",
    output_path: Path | None = None,
    fall_back: Sequence[str] | None = None,
) -> Path:
    """Detects objects in a picture and writes a copy with boxes, and masks if the model has them.

    Args:
        cfg: configuration of the model.
        image_path: the picture.
        save_prefix: stem of the checkpoint files.
        output_path: where the drawing goes; None means `data/demo/<stem>_detections<suffix>`.
        fall_back: when this configuration has no weights, use the newest model under `output/` with
            its own configuration and these overrides (KEY VALUE ...); None: do not.

    Returns:
        Path of the drawing.

    Raises:
        DataError: the picture or the weights are missing or broken.
    """
    start_logging()
    image = read_image(image_path)
    cfg, weights = _find_weights(cfg, save_prefix, fall_back)
    logger.info("weights: %s", weights)
    cfg.gpus = str(cfg.gpus).split(",")[0]
    devices = contexts(cfg.gpus)
    cfg.TEST.BATCH_IMAGES = tuple(1 for _ in cfg.TEST.SCALES)
    model = load_model(cfg, devices, weights)
    predictor = Predictor(pyramid_detector(cfg, model, devices), merge_settings(cfg))
    detections, masks = predictor.detect_with_masks([image_path])
    per_class = detections[0]
    _report(per_class, predictor.class_names)
    path = output_path or OUTPUT_FOLDER / f"{image_path.stem}_detections{image_path.suffix}"
    drawn = draw_detections(
        *(image, per_class, predictor.class_names, DRAWING_THRESHOLD),
        masks=None if masks is None else masks[0],
    )
    save_image(path, drawn)
    logger.info("picture with detections: %s", path)
    return path


def _find_weights(
    cfg: EasyDict, save_prefix: str, fall_back: Sequence[str] | None
) -> tuple[EasyDict, Path]:
    try:
        return cfg, weights_path(cfg, save_prefix)
    except DataError:
        if fall_back is None:
            raise
    newest = newest_model(Path("output"), save_prefix)
    if newest is None:
        raise DataError(
            "the weights are missing, and no trained model was found under output/",
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


def _report(per_class: list[np.ndarray], class_names: tuple[str, ...]) -> None:
    rows = [
        (row[4], class_names[index], row[:4])
        for index, rows in enumerate(per_class)
        for row in rows
        if row[4] >= DRAWING_THRESHOLD
    ]
    logger.info("%d objects with score >= %g", len(rows), DRAWING_THRESHOLD)
    for score, name, box in sorted(rows, key=lambda entry: -entry[0]):
        logger.info("  %-16s %.2f  [%s]", name, score, ", ".join(f"{x:.0f}" for x in box))

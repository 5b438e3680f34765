"""Detection on one picture, a folder or a video: finds weights, detects, draws."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.data.sources import open_source
from sniper.data.video import is_video
from sniper.inference.detect_files import detect_files
from sniper.inference.drawings import Drawings
from sniper.inference.prediction import Prediction
from sniper.process import start_logging
from sniper.runs.load_model import find_weights, is_archive
from sniper.runs.predictor import Predictor
from sniper.runs.resolve import demo_folder
from sniper.training.interrupts import StopRequest
from sniper.vis.draw import IMAGE_ENDINGS
from sniper.vis.video_writer import VIDEO_ENDING

logger = logging.getLogger(__name__)

DRAWING_THRESHOLD = 0.5
JSON_NAME = "detections.json"  # in a folder of drawings


def demo(
    cfg: EasyDict,
    image_path: Path,
    *,
    weights: Path | None = None,
    save_prefix: str = "SNIPER",
    output_path: Path | None = None,
    fall_back: Sequence[str] | None = None,
) -> Path:
    """Detects objects and writes drawings with boxes, and masks if the model has them, and a JSON.

    Args:
        cfg: configuration of the model.
        image_path: a picture, a video or a folder of pictures.
        weights: a `.params` file or an archive; None looks for one.
        save_prefix: stem of the checkpoint files.
        output_path: the drawing, or for a folder the folder of drawings; None means
            `<output_path>/demo/<stem>_detections` with the picture's ending (`.mp4` for videos).
        fall_back: the configuration is only a default: when it has no weights, use the newest model
            under `output/` with its own configuration and these overrides (KEY VALUE ...); archives
            bring their own. None: it is the user's.

    Returns:
        Path of the drawing or of the folder. The JSON lies beside the drawing, or in the folder.

    Raises:
        DataError: the picture or the weights are missing or broken.
    """
    start_logging()
    source = open_source(image_path)
    if weights is None:
        cfg, weights = find_weights(cfg, save_prefix, fall_back)
    logger.info("weights: %s", weights)
    if fall_back is not None and is_archive(weights):
        predictor = Predictor(weights)
    else:
        predictor = Predictor(cfg, weights, devices=str(cfg.gpus).split(",")[0])
    is_folder = image_path.is_dir()
    path = output_path or demo_folder(cfg) / _default_name(image_path)
    json_path = path / JSON_NAME if is_folder else path.with_suffix(".json")
    target = None if is_folder else path
    drawings = Drawings(path, threshold=DRAWING_THRESHOLD, target=target)
    with StopRequest().listen(), drawings:
        summary = detect_files(
            predictor,
            source,
            json_path,
            threshold=DRAWING_THRESHOLD,
            drawings=drawings,
            about={"model": str(weights)},
            on_prediction=None if is_folder or is_video(image_path) else _report,
        )
    logger.info("%d objects with score >= %g", summary.objects, DRAWING_THRESHOLD)
    logger.info("picture with detections: %s, numbers: %s", path, json_path)
    return path


def _default_name(path: Path) -> str:
    if path.is_dir():
        return f"{path.resolve().name}_detections"
    ending = path.suffix if path.suffix.lower() in IMAGE_ENDINGS else IMAGE_ENDINGS[0]
    return f"{path.stem}_detections{VIDEO_ENDING if is_video(path) else ending}"


def _report(prediction: Prediction) -> None:
    for box, score, index in zip(prediction.boxes, prediction.scores, prediction.classes):
        corners = ", ".join(f"{value:.0f}" for value in box)
        logger.info("  %-16s %.2f  [%s]", prediction.class_names[index], score, corners)

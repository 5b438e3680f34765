"""Detection on one picture, a folder or a video: finds weights, detects, draws."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.data.folder_walk import DETECTIONS_FILE
from sniper.data.sources import open_source
from sniper.data.video import is_video
from sniper.errors import ConfigError, DataError
from sniper.inference.detect_files import detect_files
from sniper.inference.drawings import Drawings
from sniper.inference.prediction import Prediction
from sniper.locks import folder_lock
from sniper.process import start_logging
from sniper.runs.find_weights import find_weights
from sniper.runs.folders import ANALYSIS_NAME, analysis_folder, demo_folder
from sniper.runs.load_model import is_archive
from sniper.runs.predictor import Predictor
from sniper.training.interrupts import StopRequest
from sniper.vis.draw import IMAGE_ENDINGS
from sniper.vis.video_writer import VIDEO_ENDING

logger = logging.getLogger(__name__)

DRAWING_THRESHOLD = 0.5


def demo(
    cfg: EasyDict,
    image_path: Path,
    *,
    weights: Path | None = None,
    save_prefix: str = "SNIPER",
    output_path: Path | None = None,
    fall_back: Sequence[str] | None = None,
    threshold: float | None = DRAWING_THRESHOLD,
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
        threshold: objects with a lower score are left out; None takes the score with the best F1 on
            the test set, which `sniper analyze` has found out.

    Returns:
        Path of the drawing or of the folder. The JSON lies beside the drawing, or in the folder.

    Raises:
        DataError: the picture, the weights or the analysis are missing or broken; when everything
            is written also where pictures of a folder were left out, because they cannot be read.
        ConfigError: drawings would lie among the pictures of the folder.
        TrainingError: another run draws there.
    """
    start_logging()
    is_folder = image_path.is_dir()
    source = open_source(image_path, on_error="skip" if is_folder else "raise")
    if weights is None:
        cfg, weights = find_weights(cfg, save_prefix, fall_back)
    logger.info("weights: %s", weights)
    if fall_back is not None and is_archive(weights):
        predictor = Predictor(weights)
    else:
        predictor = Predictor(cfg, weights, devices=str(cfg.gpus).split(",")[0])
    if threshold is None:
        threshold = _best_score(cfg)
    path = output_path or demo_folder(cfg) / _default_name(image_path)
    json_path = path / DETECTIONS_FILE if is_folder else path.with_suffix(".json")
    target = None if is_folder else path
    if is_folder and path.exists() and path.samefile(image_path):
        raise ConfigError(
            "the drawings would lie among their originals, and be taken for pictures next time",
            where=path,
            fix="choose another --out",
        )
    drawings = Drawings(path, threshold=threshold, target=target)
    lock = folder_lock(json_path.parent, name=json_path.stem, fix="or choose another --out")
    with lock, StopRequest().listen(), drawings:
        summary = detect_files(
            predictor,
            source,
            json_path,
            threshold=threshold,
            drawings=drawings,
            about={"model": str(weights)},
            on_prediction=None if is_folder or is_video(image_path) else _report,
        )
    logger.info("%d objects with score >= %.3g", summary.objects, threshold)
    logger.info("picture with detections: %s, numbers: %s", path, json_path)
    if summary.skipped:
        raise DataError(
            f"{len(summary.skipped)} pictures were left out, since they cannot be read; the others "
            "are done",
            where=f"skipped in {json_path}",
            got="; ".join(f"{one.name}: {one.reason.splitlines()[0]}" for one in summary.skipped),
        )
    return path


def _best_score(cfg: EasyDict) -> float:
    """The score with the best F1 on the test set, from the file of `sniper analyze`."""
    path = analysis_folder(cfg) / ANALYSIS_NAME
    try:
        best = json.loads(path.read_text(encoding="utf-8"))["best_f1"]
        score, f1 = float(best["score"]), float(best["f1"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            "the best score is not known yet",
            where=path,
            got=error,
            fix="`sniper analyze` with the same --cfg finds it out, after main_test.py; or give a "
            "number: --threshold 0.5",
        ) from error
    logger.info("score %.3f and more: the best F1 (%.2f) on the test set", score, f1)
    return score


def _default_name(path: Path) -> str:
    if path.is_dir():
        return f"{path.resolve().name}_detections"
    ending = path.suffix if path.suffix.lower() in IMAGE_ENDINGS else IMAGE_ENDINGS[0]
    return f"{path.stem}_detections{VIDEO_ENDING if is_video(path) else ending}"


def _report(prediction: Prediction) -> None:
    if len(prediction.boxes):
        logger.info("  class, score, and the box: x1, y1, x2, y2 in px of the picture")
    for box, score, index in zip(prediction.boxes, prediction.scores, prediction.classes):
        corners = ", ".join(f"{value:.0f}" for value in box)
        logger.info("  %-16s %.2f  [%s]", prediction.class_names[index], score, corners)

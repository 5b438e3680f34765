"""Detection on files: predictions as JSON and drawings, while the images pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sniper.data.sources import Skipped, Source
from sniper.detection.detections_json import DetectionsJson
from sniper.detection.drawings import Drawings
from sniper.detection.prediction import Prediction
from sniper.detection.predictor import Predictor
from sniper.inference.stats import RunStats
from sniper.setup.progress import format_time

logger = logging.getLogger(__name__)

# A line at least this often, so that slow and dead can be told apart.
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class DetectSummary:
    """What a run has done: images, objects in them, what was left out, and the time it took."""

    images: int
    objects: int
    skipped: tuple[Skipped, ...]
    stats: RunStats


def detect_files(
    predictor: Predictor,
    source: Source,
    json_path: Path,
    *,
    threshold: float,
    drawings: Drawings | None = None,
    about: dict[str, str] | None = None,
    on_prediction: Callable[[Prediction], None] | None = None,
) -> DetectSummary:
    """Detects on a source and writes one JSON file, and drawings if wanted.

    Memory does not grow with the source. However the run ends, the JSON is valid and holds all
    images that were finished; `complete` in it is true when the source came to its end.

    Args:
        predictor: the model.
        source: the images.
        json_path: the file; see `DetectionsJson` and `Prediction.as_dict`.
        threshold: objects with a lower score are left out of the file.
        drawings: where pictures and videos go; None for none.
        about: more to write at the beginning of the file.
        on_prediction: called with each prediction when it is written.

    Raises:
        DataError: an image cannot be read and the source leaves none out, or a file of a drawing
            cannot be written.
    """
    head = {**(about or {}), "threshold": threshold, "classes": list(predictor.class_names)}
    progress = _Progress(source)
    objects, complete = 0, False
    predictor.take_stats()
    with DetectionsJson(json_path, head) as file:
        try:
            for prediction, pixels in predictor.stream_with_pixels(source):
                prediction = prediction.filter(threshold)
                entry = prediction.as_dict()
                if drawings is not None:
                    entry["drawing"] = str(drawings.add(prediction, pixels))
                file.add(entry)
                if on_prediction is not None:
                    on_prediction(prediction)
                objects += len(prediction)
                progress.step()
            complete = True
        finally:
            file.close(source.skipped, complete=complete)
            if not complete:
                logger.info("%s holds the %d finished images", json_path, progress.done)
    return DetectSummary(progress.done, objects, tuple(source.skipped), predictor.take_stats())


class _Progress:
    """Logs images done, speed and remaining time."""

    def __init__(self, source: Source) -> None:
        self.done = 0
        self._total = source.expected
        self._start_s = self._last_s = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now_s = time.monotonic()
        if now_s - self._last_s < PROGRESS_EVERY_S:
            return
        self._last_s = now_s
        each_s = (now_s - self._start_s) / self.done
        if self._total is None:
            logger.info("%d images, %.3f s each", self.done, each_s)
            return
        left_s = each_s * max(self._total - self.done, 0)
        logger.info(
            "%d/%d images, %.3f s each, ETA %s", self.done, self._total, each_s, format_time(left_s)
        )

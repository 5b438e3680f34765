"""A loaded detector for plain image files, without a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sniper.data import Record
from sniper.data.image import read_image
from sniper.inference.merge import MergeSettings
from sniper.inference.pyramid import PyramidDetector


class Predictor:
    """Detects objects in image files; the model is loaded once."""

    def __init__(self, detector: PyramidDetector, merge: MergeSettings) -> None:
        self._detector = detector
        self._merge = merge
        self.class_names = detector.model.class_names

    def detect(self, paths: Sequence[str | Path]) -> list[list[np.ndarray]]:
        """Per image, per class (index 0 empty) an (n, 5) float32 array x1 y1 x2 y2 score, in px.

        Raises:
            DataError: a file is missing or is no image.
        """
        return self._detector.detect(_records(paths), self._merge)

    def detect_with_masks(
        self, paths: Sequence[str | Path]
    ) -> tuple[list[list[np.ndarray]], list[list[list[bytes]]] | None]:
        """Detections as `detect` gives them, and their masks; None if the network has no masks.

        Per image and class the masks are a list of compressed COCO run lengths, one for each
        detection: `pycocotools.mask.decode({"size": [height, width], "counts": counts})`.

        Raises:
            DataError: a file is missing or is no image.
        """
        return self._detector.detect_with_masks(_records(paths), self._merge)


def _records(paths: Sequence[str | Path]) -> list[Record]:
    return [_record(Path(path), index) for index, path in enumerate(paths)]


def _record(path: Path, index: int) -> Record:
    height, width = read_image(path).shape[:2]
    return Record(
        image_path=str(path),
        image_id=index,
        width=width,
        height=height,
        flipped=False,
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int32),
        is_gt=np.zeros(0, bool),
    )

"""A detector's boxes with classes that were learnt from pictures, in place of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from sniper.errors import ConfigError
from sniper.inference.executor import Executor, MaskJob
from sniper.inference.picture_classes import PictureClasses
from sniper.models.class_scores import objectness_of
from sniper.models.parts import WindowDetections


class NewClassesExecutor:
    """Scores the boxes of an executor anew: P(object of any class) x P(class | object).

    What is no object has a low score for every class (2018 behaviour). Masks belong to the
    detector's own classes, so there are none.

    Args:
        executor: the detector; its detections have `roi_features`.
        classes: the new classes.
    """

    def __init__(self, executor: Executor, classes: PictureClasses) -> None:
        self._executor, self._classes = executor, classes
        self.num_devices = executor.num_devices
        self.traits = replace(
            executor.traits, class_names=classes.class_names, roi_channels=0, has_masks=False
        )

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch; see `Executor`."""
        return [self._scored(window) for window in self._executor.run(data, im_info)]

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """There are none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("new classes have no masks")

    def identity(self) -> dict[str, object]:
        """Whatever results depend on; see `Executor`."""
        content = (self._classes.weights, self._classes.biases)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()
        return {**self._executor.identity(), "classes": [*self._classes.names, digest]}

    def _scored(self, window: WindowDetections) -> WindowDetections:
        if window.roi_features is None:
            raise ConfigError("new classes need an executor that gives features")
        objectness = objectness_of(window.scores)
        scores = objectness[:, None] * self._classes.probabilities(window.roi_features)  # (R, K)
        scores = np.concatenate([1 - scores.sum(axis=1, keepdims=True), scores], axis=1)
        maps = {name: array for name, array in window.maps.items() if name != "roi"}
        return WindowDetections(window.boxes, scores, window.is_filled, maps)

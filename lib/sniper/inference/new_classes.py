"""A detector's boxes with classes that were learnt from pictures, in place of its own."""

from __future__ import annotations

import hashlib

import numpy as np

from sniper.errors import ConfigError
from sniper.inference.executor import Executor
from sniper.inference.picture_classes import PictureClasses
from sniper.inference.rescored import RescoredExecutor
from sniper.models.class_scores import objectness_of
from sniper.models.parts import WindowDetections


class NewClassesExecutor(RescoredExecutor):
    """Scores the boxes of an executor anew: P(object of any class) x P(class | object).

    What is no object has a low score for every class (2018 behaviour).

    Args:
        executor: the detector; its detections have `roi_features`.
        classes: the new classes.
    """

    def __init__(self, executor: Executor, classes: PictureClasses) -> None:
        super().__init__(executor, classes.class_names)
        self._classes = classes

    def scores(self, window: WindowDetections) -> np.ndarray:
        """(R, K + 1)."""
        if window.roi_features is None:
            raise ConfigError("new classes need an executor that gives features")
        objectness = objectness_of(window.scores)
        scores = objectness[:, None] * self._classes.probabilities(window.roi_features)  # (R, K)
        return np.concatenate([1 - scores.sum(axis=1, keepdims=True), scores], axis=1)

    def scores_key(self) -> dict[str, object]:
        """The classes, by name and content."""
        content = (self._classes.weights, self._classes.biases)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()
        return {"classes": [*self._classes.names, digest]}

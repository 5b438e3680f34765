"""Detection of objects of any class."""

from __future__ import annotations

import numpy as np

from sniper.data.one_class import OBJECT_CLASSES
from sniper.inference.executor import Executor
from sniper.inference.rescored import RescoredExecutor
from sniper.models.class_scores import objectness_of
from sniper.models.parts import WindowDetections


class ClassAgnosticExecutor(RescoredExecutor):
    """Another executor whose boxes are all of one class, `object`.

    The score of a box is its probability of being no background: objectness in R-FCN-3K, the sum
    over all classes in other networks. Levels and NMS do not tell classes apart then.

    Args:
        executor: the network.
    """

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor, OBJECT_CLASSES.names)

    def scores(self, window: WindowDetections) -> np.ndarray:
        """(R, 2)."""
        objectness = objectness_of(window.scores)
        return np.stack([1 - objectness, objectness], axis=1)

    def scores_key(self) -> dict[str, object]:
        """That it is class-agnostic."""
        return {"class_agnostic": True}

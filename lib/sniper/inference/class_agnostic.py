"""Detection of objects of any class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from sniper.data.one_class import OBJECT_CLASSES
from sniper.errors import ConfigError
from sniper.inference.executor import Executor, MaskJob
from sniper.models.class_scores import objectness_of
from sniper.models.parts import WindowDetections


class ClassAgnosticExecutor:
    """Another executor whose boxes are all of one class, `object`.

    The score of a box is its probability of being no background: objectness in R-FCN-3K, the sum
    over all classes in other networks. Levels and NMS do not tell classes apart then. Masks, which
    are made for classes, are left out.

    Args:
        executor: the network.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.num_devices = executor.num_devices
        self.traits = replace(
            executor.traits, class_names=OBJECT_CLASSES.names, roi_channels=0, has_masks=False
        )

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch; see `Executor`."""
        return [_of_one_class(window) for window in self._executor.run(data, im_info)]

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """There are none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("class-agnostic detection has no masks")

    def identity(self) -> dict[str, object]:
        """Whatever results depend on; see `Executor`."""
        return {**self._executor.identity(), "class_agnostic": True}


def _of_one_class(window: WindowDetections) -> WindowDetections:
    objectness = objectness_of(window.scores)
    scores = np.stack([1 - objectness, objectness], axis=1)
    maps = {name: array for name, array in window.maps.items() if name != "roi"}
    return WindowDetections(window.boxes, scores, window.is_filled, maps)

"""Other scores for the boxes of an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from sniper.errors import ConfigError
from sniper.inference.executor import Executor, MaskJob
from sniper.models.parts import WindowDetections


class RescoredExecutor(ABC):
    """Another executor's boxes with scores of other classes; see `Executor`.

    Masks belong to the executor's own classes, so there are none.

    Args:
        executor: the network.
        class_names: of the scores, index 0 is the background.
    """

    def __init__(self, executor: Executor, class_names: tuple[str, ...]) -> None:
        self._executor = executor
        self.num_devices = executor.num_devices
        self.traits = replace(
            executor.traits, class_names=class_names, roi_channels=0, has_masks=False
        )

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch."""
        return [self._rescored(window) for window in self._executor.run(data, im_info)]

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """There are none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("other classes than the network's own have no masks")

    def identity(self) -> dict[str, object]:
        """Whatever results depend on."""
        return {**self._executor.identity(), **self.scores_key()}

    @abstractmethod
    def scores(self, window: WindowDetections) -> np.ndarray:
        """(R, C) float32 scores of the boxes of a window, the background in front."""

    @abstractmethod
    def scores_key(self) -> dict[str, object]:
        """What the scores depend on besides the executor, as plain values."""

    def _rescored(self, window: WindowDetections) -> WindowDetections:
        maps = {name: array for name, array in window.maps.items() if name != "roi"}
        return WindowDetections(window.boxes, self.scores(window), window.is_filled, maps)

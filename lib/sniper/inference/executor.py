"""The engine under a detector: what detection asks of a network, whatever computes it.

Everything else in this room is independent of the engine: `mxnet_executor` runs detectors in MXNet,
`onnx_executor` in ONNX engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sniper.models.parts import WindowDetections


@dataclass(frozen=True)
class DetectorTraits:
    """What detection must know of a network.

    Attributes:
        class_names: index 0 is the background.
        feature_stride: px of the network's input for each cell of its maps.
        roi_channels: channels of the map that the mask head reads.
        has_masks: `Executor.masks` works, and `Executor.run` puts out that map.
    """

    class_names: tuple[str, ...]
    feature_stride: int
    roi_channels: int
    has_masks: bool


@dataclass(frozen=True, eq=False)
class MaskJob:
    """Boxes whose masks are read from one RoI map.

    Attributes:
        roi_map: (K, h, w) float32, of one window at one level.
        boxes: (n, 4) float32, px of the network's input at that level; n >= 1.
        classes: (n,) int, 1 ... C-1.
    """

    roi_map: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class Executor(Protocol):
    """A network with its weights on its devices; threads may share it."""

    @property
    def traits(self) -> DetectorTraits:
        """What detection must know of the network."""
        ...

    @property
    def num_devices(self) -> int:
        """`run` takes multiples of so many windows."""
        ...

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch, which may not depend on the other windows.

        Args:
            data: (B, 3, h, w) float32 RGB minus the means; h and w are multiples of 32, of any
                size and changing from call to call.
            im_info: (B, 3) float32: height and width of the content, px, and its scale.

        Raises:
            DataError: the weights do not fit the network.
        """
        ...

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """Per job, in order, (n, m, m) float32: the probability of being part of the object."""
        ...

    def identity(self) -> dict[str, object]:
        """Whatever results depend on, as plain values for JSON: engine, network, kind of device.

        The number of devices must make no difference; the weights' file is known elsewhere.
        """
        ...

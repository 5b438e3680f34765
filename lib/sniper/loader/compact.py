"""Samples in the form that travels from the workers: a tenth of the bytes of the float32 arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sniper.loader.batch_settings import BatchSettings
from sniper.native._native import image_to_chw
from sniper.targets.contract import Shape

ArraySpecs = dict[str, tuple[type, Shape]]

# While one set is in use the next batch is written to the other.
_SETS = 2
# The content of a chip may be some px larger than the chip (2018 behaviour): with room for it in
# the slot it need not be resized elsewhere and copied.
_MARGIN_PX = 8


def compact_specs(settings: BatchSettings) -> ArraySpecs:
    """Type and shape of the arrays of one compact sample.

    * pixels: BGR, the content at the top left; anything may stand outside of it.
    * content_hw: rows and columns of the content; what is beyond the chip's size is cut off later.
    * the compact arrays of every part of the contract.
    """
    contract = settings.contract
    side = contract.chip_size + _MARGIN_PX
    image: ArraySpecs = {
        "pixels": (np.uint8, (side, side, 3)),
        "content_hw": (np.int32, (2,)),
    }
    arrays = (array for part in contract.parts for array in part.compact)
    return image | {array.name: (array.dtype, array.shape) for array in arrays}


def empty_arrays(specs: ArraySpecs, batch_size: int) -> dict[str, np.ndarray]:
    """Arrays (batch_size, *shape) of compact samples in this process."""
    return {name: np.zeros((batch_size, *shape), kind) for name, (kind, shape) in specs.items()}


class Expander:
    """Turns compact batches into the float32 arrays of the network.

    It owns the arrays and uses two sets of them in turn: what `expand` returns stays as it is until
    `expand` is called for the next batch but one.

    Args:
        settings: names and shapes.
        batch_size: samples of a batch.
    """

    def __init__(self, settings: BatchSettings, batch_size: int) -> None:
        self._means = tuple(float(mean) for mean in settings.pixel_means)
        self._parts = settings.contract.parts
        self._sets = [
            {
                name: np.zeros((batch_size, *shape), np.float32)
                for name, shape in settings.contract.shapes.items()
            }
            for _ in range(_SETS)
        ]

    def expand(self, compact: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a batch by name, from arrays as `compact_specs` describes them."""
        arrays = self._sets.pop(0)
        self._sets.append(arrays)
        image_to_chw(compact["pixels"], compact["content_hw"], self._means, arrays["data"])
        for part in self._parts:
            part.expand(compact, arrays)
        return arrays

"""Samples in the form that travels from the workers: a tenth of the bytes of the float32 arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sniper.loader.settings import BatchSettings, Shape
from sniper.native._native import expand_rpn_batch, image_to_chw

ArraySpecs = dict[str, tuple[type, Shape]]

# Arrays of the network that are made from arrays of other names.
_EXPANDED = ("data", "label", "bbox_target", "bbox_weight")
# While one set is in use the next batch is written to the other.
_SETS = 2
# The content of a chip may be some px larger than the chip (2018 behaviour): with room for it in
# the slot it need not be resized elsewhere and copied.
_MARGIN_PX = 8


def compact_specs(settings: BatchSettings) -> ArraySpecs:
    """Type and shape of the arrays of one compact sample.

    * pixels: BGR, the content at the top left; anything may stand outside of it.
    * content_hw: rows and columns of the content; what is beyond the chip's size is cut off later.
    * rpn_label: -1 / 0 / 1 in the order (A, H, W).
    * positives: how many rows of the next two arrays are used.
    * positive_index: (p,) flat (A, H, W) indices of the positive anchors, ascending.
    * positive_target: (p, 4) their regression targets.
    * all other arrays of the network as they are, `scale_label` in bytes.
    """
    (anchors,) = settings.shapes["label"]
    positives = max(1, min(settings.rpn_targets.max_positives, anchors))
    copied: ArraySpecs = {
        name: (np.int8 if name == "scale_label" else np.float32, shape)
        for name, shape in settings.shapes.items()
        if name not in _EXPANDED
    }
    side = settings.chip_size + _MARGIN_PX
    return {
        "pixels": (np.uint8, (side, side, 3)),
        "content_hw": (np.int32, (2,)),
        "rpn_label": (np.int8, (anchors,)),
        "positives": (np.int32, ()),
        "positive_index": (np.int32, (positives,)),
        "positive_target": (np.float32, (positives, 4)),
        **copied,
    }


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
        self._copied = [name for name in settings.shapes if name not in _EXPANDED]
        self._sets = [
            {
                name: np.zeros((batch_size, *shape), np.float32)
                for name, shape in settings.shapes.items()
            }
            for _ in range(_SETS)
        ]

    def expand(self, compact: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a batch by name, from arrays as `compact_specs` describes them."""
        arrays = self._sets.pop(0)
        self._sets.append(arrays)
        image_to_chw(compact["pixels"], compact["content_hw"], self._means, arrays["data"])
        expand_rpn_batch(
            compact["rpn_label"],
            compact["positives"],
            compact["positive_index"],
            compact["positive_target"],
            arrays["label"],
            arrays["bbox_target"],
            arrays["bbox_weight"],
        )
        for name in self._copied:
            np.copyto(arrays[name], compact[name])
        return arrays

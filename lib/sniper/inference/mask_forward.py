"""The mask head bound for inference: RoI maps and boxes in, mask probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper.inference.weights import Model, params_of
from sniper.models.detector import build_mask_head

# Boxes go through the network in whole groups of this: few different shapes, and what a group
# computes depends on its image alone, not on the images beside it.
GROUP = 8
LARGEST_BATCH = 64


@dataclass(frozen=True, eq=False)
class MaskJob:
    """Boxes whose masks are read from one RoI map.

    Attributes:
        roi_map: (K, h, w) float32, of one chip at one level.
        boxes: (n, 4) float32, px of the network's input at that level; n >= 1.
        classes: (n,) int, 1 ... C-1.
    """

    roi_map: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class MaskForward:
    """The mask head of a model on the given devices; any map size, any number of boxes."""

    def __init__(self, model: Model, devices: Sequence[mx.Context]) -> None:
        symbol = build_mask_head(model.spec)
        self._heads = [_BoundHead(symbol, model, device) for device in devices]

    def __call__(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """Per job, in order, (n, m, m) float32: the probability of being part of the object."""
        parts = [part for job in jobs for part in _split(job)]
        width = len(self._heads)
        done: list[np.ndarray] = []
        for start in range(0, len(parts), width):
            # All devices work on their part before the first one is waited for.
            wave = parts[start : start + width]
            outputs = [head.start(job) for head, (job, _) in zip(self._heads, wave)]
            for (job, is_last), output in zip(wave, outputs):
                done.append(output.asnumpy()[: len(job.boxes)])
                if is_last:
                    yield np.concatenate(done)
                    done = []


def _split(job: MaskJob) -> list[tuple[MaskJob, bool]]:
    """Parts of a job that fit into one batch, and whether a part is the last one."""
    count = len(job.boxes)
    cuts = [slice(start, start + LARGEST_BATCH) for start in range(0, count, LARGEST_BATCH)]
    return [
        (MaskJob(job.roi_map, job.boxes[cut], job.classes[cut]), cut.stop >= count) for cut in cuts
    ]


class _BoundHead:
    """The mask head on one device."""

    def __init__(self, symbol: mx.sym.Symbol, model: Model, device: mx.Context) -> None:
        self._symbol, self._model, self._device = symbol, model, device
        self._executor: mx.executor.Executor | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    def start(self, job: MaskJob) -> mx.nd.NDArray:
        """Begins to compute the masks of at most LARGEST_BATCH boxes.

        The result has void rows behind those of the boxes, and holds until the next call.
        """
        count = len(job.boxes)
        padded = -(-count // GROUP) * GROUP
        rois = np.zeros((padded, 5), np.float32)
        rois[:count, 1:] = job.boxes
        classes = np.ones(padded, np.float32)
        classes[:count] = job.classes
        inputs = {"roi_map": job.roi_map[None], "mask_rois": rois, "mask_classes": classes}
        executor = self._bound({name: array.shape for name, array in inputs.items()})
        return executor.forward(is_train=False, **inputs)[0]

    def _bound(self, shapes: dict[str, tuple[int, ...]]) -> mx.executor.Executor:
        if self._executor is None:
            arg, aux = params_of(self._symbol, shapes, self._model)
            self._executor = self._symbol.simple_bind(self._device, grad_req="null", **shapes)
            self._executor.copy_params_from(arg, aux)
        elif shapes != self._shapes:
            self._executor = self._executor.reshape(allow_up_sizing=True, **shapes)
        self._shapes = shapes
        return self._executor

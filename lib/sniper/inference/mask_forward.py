"""The mask head bound for inference: RoI maps and boxes in, mask probabilities out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper.inference.bound import BoundGraph
from sniper.models.detector import build_mask_head
from sniper.models.fit import Model

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
    """The mask head of a model on the given devices; any map size, any number of boxes.

    Threads may share it."""

    def __init__(self, model: Model, devices: Sequence[mx.Context]) -> None:
        symbol = build_mask_head(model.spec)
        self._heads = [BoundGraph(symbol, model, device) for device in devices]
        self._lock = threading.Lock()

    def __call__(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """Per job, in order, (n, m, m) float32: the probability of being part of the object."""
        parts = [part for job in jobs for part in _split(job)]
        width = len(self._heads)
        done: list[np.ndarray] = []
        for start in range(0, len(parts), width):
            # All devices work on their part before the first one is waited for.
            wave = parts[start : start + width]
            with self._lock:
                started = [head.start(_inputs(job))[0] for head, (job, _) in zip(self._heads, wave)]
                outputs = [output.asnumpy() for output in started]
            for (job, is_last), output in zip(wave, outputs):
                done.append(output[: len(job.boxes)])
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


def _inputs(job: MaskJob) -> dict[str, np.ndarray]:
    """Inputs for at most LARGEST_BATCH boxes, with void rows behind those of the boxes."""
    count = len(job.boxes)
    padded = -(-count // GROUP) * GROUP
    rois = np.zeros((padded, 5), np.float32)
    rois[:count, 1:] = job.boxes
    classes = np.ones(padded, np.float32)
    classes[:count] = job.classes
    return {"roi_map": job.roi_map[None], "mask_rois": rois, "mask_classes": classes}

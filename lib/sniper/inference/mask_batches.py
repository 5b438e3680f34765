"""From the boxes of a RoI map to batches of the mask head, whatever computes it."""

from __future__ import annotations

import numpy as np

from sniper.inference.executor import MaskJob

# Boxes go through the mask head in whole groups of this: few different shapes, and what a group
# computes depends on its image alone, not on the images beside it.
MASK_GROUP = 8
MOST_MASKS = 64


def split_job(job: MaskJob) -> list[tuple[MaskJob, bool]]:
    """Parts of a job that fit into one batch, and whether a part is the last one."""
    count = len(job.boxes)
    cuts = [slice(start, start + MOST_MASKS) for start in range(0, count, MOST_MASKS)]
    return [
        (MaskJob(job.roi_map, job.boxes[cut], job.classes[cut]), cut.stop >= count) for cut in cuts
    ]


def mask_inputs(job: MaskJob) -> dict[str, np.ndarray]:
    """Inputs for at most MOST_MASKS boxes, with void rows behind those of the boxes."""
    count = len(job.boxes)
    padded = -(-count // MASK_GROUP) * MASK_GROUP
    rois = np.zeros((padded, 5), np.float32)
    rois[:count, 1:] = job.boxes
    classes = np.ones(padded, np.float32)
    classes[:count] = job.classes
    return {"roi_map": job.roi_map[None], "mask_rois": rois, "mask_classes": classes}

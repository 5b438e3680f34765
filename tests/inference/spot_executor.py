"""An executor without any engine: finds the white spots of a window, easy to foresee."""

from __future__ import annotations

import cv2
import numpy as np

from sniper.inference.executor import DetectorTraits, NetworkOutputs

STRIDE = 16
MOST_SPOTS = 8


class SpotExecutor:
    """White spots are class 1 of 3; it looks closer where they are small.

    The mask of a box is full where the image is white, with `masks`.
    """

    num_devices = 1

    def __init__(self, *, with_masks=False):
        names = ("__background__", "a", "b")
        self.traits = DetectorTraits(names, STRIDE, 1, has_masks=with_masks)
        self.shapes = []

    def run(self, data, im_info):
        self.shapes.append(data.shape)
        found = [self._window(plane, info) for plane, info in zip(data[:, 0] > 128, im_info)]
        rois, focus_maps = map(np.stack, zip(*found))
        return NetworkOutputs(
            rois,
            np.tile(np.float32([0.1, 0.9, 0]), (*rois.shape[:2], 1)),
            np.zeros_like(rois),
            data[:, :1] if self.traits.has_masks else None,
            focus_maps,
        )

    def _window(self, plane, info):
        height, width = info[:2].astype(int)
        rois = np.zeros((MOST_SPOTS, 4), np.float32)
        focus_map = np.zeros([side // STRIDE for side in plane.shape], np.float32)
        plane = plane[:height, :width].astype(np.uint8)
        spots = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[-2]
        for row, contour in enumerate(spots):
            x, y, w, h = cv2.boundingRect(contour)
            rois[row] = x, y, x + w, y + h
            if max(w, h) < STRIDE:
                focus_map[(y + h // 2) // STRIDE, (x + w // 2) // STRIDE] = 0.9
        return rois, focus_map

    def masks(self, jobs):
        for job in jobs:
            parts = [job.roi_map[0, y1:y2, x1:x2] for x1, y1, x2, y2 in job.boxes.astype(int)]
            yield np.stack([cv2.resize((part > 128) * np.float32(1), (28, 28)) for part in parts])

    def identity(self):
        return {"engine": "spots"}

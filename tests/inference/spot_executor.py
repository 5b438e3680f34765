"""An executor without any engine: finds the white spots of a window, easy to foresee."""

from __future__ import annotations

import cv2
import numpy as np

from sniper.inference.executor import DetectorTraits
from sniper.models.parts import WindowDetections

STRIDE = 16


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
        return [self._window(plane, info) for plane, info in zip(data, im_info)]

    def _window(self, data, info):
        height, width = info[:2].astype(int)
        boxes, focus_map = [], np.zeros([side // STRIDE for side in data.shape[1:]], np.float32)
        white = (data[0, :height, :width] > 128).astype(np.uint8)
        spots = cv2.findContours(white, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[-2]
        for contour in spots:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append((x, y, x + w, y + h))
            if max(w, h) < STRIDE:
                focus_map[(y + h // 2) // STRIDE, (x + w // 2) // STRIDE] = 0.9
        maps = {"focus": focus_map}
        if self.traits.has_masks:
            maps["roi"] = data[:1]
        scores = np.tile(np.float32([0.1, 0.9, 0]), (len(boxes), 1))
        return WindowDetections(np.float32(boxes).reshape(-1, 4), scores, maps=maps)

    def masks(self, jobs):
        for job in jobs:
            parts = [job.roi_map[0, y1:y2, x1:x2] for x1, y1, x2, y2 in job.boxes.astype(int)]
            yield np.stack([cv2.resize((part > 128) * np.float32(1), (28, 28)) for part in parts])

    def identity(self):
        return {"engine": "spots"}

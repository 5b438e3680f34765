"""The objects of a set in flat arrays, as its evaluation sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Objects:
    """M annotated objects, ordered by image.

    Attributes:
        images: (M,) int64 index into the records, rising.
        classes: (M,) int32.
        boxes: (M, 4) float64 x y width height, image px, as annotated.
        ignored: (M,) bool: crowd regions and difficult objects, which need not be found.
        crowd: (M,) bool: regions that may hold several objects.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def of_image(self, index: int) -> slice:
        """Where the objects of an image stand."""
        start, stop = np.searchsorted(self.images, [index, index + 1])
        return slice(int(start), int(stop))

    def by_image(self) -> Objects:
        """The same objects in the order of their images."""
        order = np.argsort(self.images, kind="stable")
        fields = ("images", "classes", "boxes", "ignored", "crowd")
        return Objects(*(getattr(self, name)[order] for name in fields))

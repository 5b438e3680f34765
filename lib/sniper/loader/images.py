"""Decoded images that are likely to be needed again soon."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from sniper.data.image import read_image


class ImageCache:
    """Keeps the images that were read last; threads may share it.

    Args:
        max_images: most images kept; 0 keeps none.
        max_bytes: most memory of all kept images together.
    """

    def __init__(self, max_images: int = 16, max_bytes: int = 256 << 20) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self._images: OrderedDict[tuple[str, bool], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, path: str, flipped: bool = False) -> np.ndarray:
        """The image (H, W, 3) uint8 BGR, which must not be written to.

        Raises:
            DataError: it cannot be read.
        """
        key = (path, flipped)
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        # Read outside the lock, so that threads decode at the same time.
        image = read_image(path, flipped)
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self._bytes += image.nbytes
            while len(self._images) > self.max_images or self._bytes > self.max_bytes:
                _, dropped = self._images.popitem(last=False)
                self._bytes -= dropped.nbytes
        return image

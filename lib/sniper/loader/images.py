"""Decoded images that are likely to be needed again soon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

import numpy as np

from sniper.data.image import read_image


class ImageSource(Protocol):
    """Where decoded images come from; threads share it."""

    def read(self, path: str, reduction: int = 1) -> np.ndarray:
        """The image (H, W, 3) uint8 BGR, which must not be written to; see `read_image`.

        Raises:
            DataError: it cannot be read.
        """


class RecentKeys:
    """Which keys a cache holds that drops the least recently used ones, without the values.

    The process that hands out work keeps one for each worker, and so knows what a worker's cache
    holds without asking.

    Args:
        max_items: most keys.
        max_bytes: most memory of all values together; one value may be larger.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._sizes: OrderedDict[Hashable, int] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def use(self, key: Hashable, num_bytes: int) -> list[Hashable]:
        """Notes that a key is used now; returns the keys that are dropped, perhaps itself."""
        if key in self._sizes:
            self._sizes.move_to_end(key)
            return []
        self._sizes[key] = num_bytes
        self._bytes += num_bytes
        dropped = []
        while self._is_too_full():
            oldest, size = self._sizes.popitem(last=False)
            self._bytes -= size
            dropped.append(oldest)
        return dropped

    def _is_too_full(self) -> bool:
        count = len(self._sizes)
        return count > self.max_items or (count > 1 and self._bytes > self.max_bytes)


class ImageCache:
    """Keeps the images that were read last; threads may share it.

    Args:
        max_images: most images kept; 0 keeps none.
        max_bytes: most memory of all kept images together; one image may be larger.
    """

    def __init__(self, max_images: int = 1 << 30, max_bytes: int = 256 << 20) -> None:
        self._recent = RecentKeys(max_images, max_bytes)
        self._images: dict[Hashable, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, path: str, reduction: int = 1) -> np.ndarray:
        """The image (H, W, 3) uint8 BGR, which must not be written to; see `read_image`.

        Raises:
            DataError: it cannot be read.
        """
        key = (path, reduction)
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._recent.use(key, image.nbytes)
                return image
        # Read outside the lock, so that threads decode at the same time.
        image = read_image(path, reduction=reduction)
        with self._lock:
            self._images[key] = image
            for dropped in self._recent.use(key, image.nbytes):
                self._images.pop(dropped, None)
        return image

"""Decoded images that are likely to be needed again soon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sniper.data.image import read_image
from sniper.data.orientation import ImageFrame
from sniper.data.picture_notes import PictureNotes


class ImageSource(Protocol):
    """Where decoded images come from; threads share it."""

    def read(self, path: str, reduction: int = 1, frame: ImageFrame | None = None) -> np.ndarray:
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
        self._notes = PictureNotes()

    def read(self, path: str, reduction: int = 1, frame: ImageFrame | None = None) -> np.ndarray:
        """The image (H, W, 3) uint8 BGR, which must not be written to; see `read_image`.

        Raises:
            DataError: it cannot be read.
        """
        key = (path, reduction, frame)
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._recent.use(key, image.nbytes)
                return image
        # Read outside the lock, so that threads decode at the same time.
        image = read_image(path, reduction=reduction, frame=frame, on_note=self._notes.tell)
        with self._lock:
            self._images[key] = image
            for dropped in self._recent.use(key, image.nbytes):
                self._images.pop(dropped, None)
        return image


# What a chip costs beside the decoding of its image (cut, resize, labels), in decoded pixels.
_CHIP_COST_PX = 150_000
# To decode an image twice is lost for ever, while uneven shares are made up for by later ones: a
# worker that has the image may be busier than the others by so many decodings.
_PATIENCE = 4


@dataclass(frozen=True)
class ImageUse:
    """The image that a sample needs.

    Attributes:
        key: what the workers' caches call it.
        num_bytes: its size in a cache.
        decode_px: pixels of the stored image: what it costs to decode.
    """

    key: Hashable
    num_bytes: int
    decode_px: int


class Router:
    """Divides the samples of a batch among workers.

    All samples of an image in a batch go to one worker: to one that still has the image decoded,
    unless it is much busier than the others, else to the least busy one. Speed depends on this
    choice, the content of the batches does not.

    Args:
        num_workers: how many there are.
        cache_bytes: what the cache of each holds.
    """

    def __init__(self, num_workers: int, cache_bytes: int) -> None:
        self._caches = [RecentKeys(1 << 30, cache_bytes) for _ in range(num_workers)]
        self._busy = [0] * num_workers

    def divide(self, uses: Sequence[ImageUse]) -> list[list[int]]:
        """For each worker the samples (indices of `uses`) that it makes, in order."""
        groups: dict[Hashable, list[int]] = {}
        for index, use in enumerate(uses):
            groups.setdefault(use.key, []).append(index)
        shares: list[list[int]] = [[] for _ in self._caches]
        for members in sorted(groups.values(), key=lambda group: self._rank(uses[group[0]], group)):
            use = uses[members[0]]
            has_it = [use.key in cache for cache in self._caches]
            advantage = _PATIENCE * use.decode_px
            rating = [busy - advantage * has for busy, has in zip(self._busy, has_it)]
            worker = rating.index(min(rating))
            self._busy[worker] += _cost(use, members) - use.decode_px * has_it[worker]
            self._caches[worker].use(use.key, use.num_bytes)
            shares[worker] += members
        least = min(self._busy)
        self._busy = [busy - least for busy in self._busy]
        return shares

    def _rank(self, use: ImageUse, members: Sequence[int]) -> tuple[bool, int]:
        """Images at hand first, before new ones displace them; then large pieces first, since
        small ones fill the gaps.
        """
        return all(use.key not in cache for cache in self._caches), -_cost(use, members)


def _cost(use: ImageUse, members: Sequence[int]) -> int:
    return use.decode_px + len(members) * _CHIP_COST_PX

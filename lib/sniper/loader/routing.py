"""Which worker makes which sample: those of one image go to the worker that has it decoded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from sniper.loader.images import RecentKeys

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

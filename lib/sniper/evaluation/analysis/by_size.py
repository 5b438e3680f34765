"""Which share of the objects of a size is found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.evaluation.analysis.causes import unfound
from sniper.evaluation.analysis.matching import Matches

_BINS_PER_OCTAVE = 2


@dataclass(frozen=True, eq=False)
class SizeRecall:
    """Objects by size, B bins of equal ratios.

    Attributes:
        edges: (B + 1,) px, rising; a bin holds its lower edge.
        objects: (B,) objects that are to be found.
        found: (B,) those that a detection of any score finds, IoU 0.50.
        confident: (B,) those that one of the least score finds.
    """

    edges: np.ndarray
    objects: np.ndarray
    found: np.ndarray
    confident: np.ndarray

    def share(self, counts: np.ndarray) -> np.ndarray:
        """(B,) counts as shares of the objects; NaN for empty bins."""
        none = np.full(len(counts), np.nan)
        return np.divide(counts, self.objects, out=none, where=self.objects > 0)


def recall_by_size(
    matches: Matches, sides: np.ndarray, chosen: np.ndarray, score: float
) -> SizeRecall:
    """The share of the objects that is found, by their size.

    Args:
        matches: of `match_detections`.
        sides: (M,) size of each object, px of any frame: of the image, or of the network's input.
        chosen: (M,) bool, the objects to look at; those that need not be found never count.
        score: the least score of `confident`.

    Returns:
        Bins from the smallest to the largest of these objects; none without objects.
    """
    rows = np.flatnonzero(chosen & ~matches.objects.ignored)
    if not len(rows):
        return SizeRecall(np.ones(1), *(np.zeros(0, np.int64) for _ in range(3)))
    octaves = np.log2(np.maximum(sides[rows], 1))
    bins = np.floor(octaves * _BINS_PER_OCTAVE + 1e-9).astype(np.int64)
    first, last = int(bins.min()), int(bins.max())
    counts = [
        np.bincount(bins[which] - first, minlength=last - first + 1)
        for which in (
            np.ones(len(rows), bool),
            matches.found_by[rows] >= 0,
            ~unfound(matches, score)[rows],
        )
    ]
    edges = 2.0 ** (np.arange(first, last + 2) / _BINS_PER_OCTAVE)
    return SizeRecall(edges, *counts)

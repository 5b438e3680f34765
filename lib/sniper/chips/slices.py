"""Uniform windows over a large image, as in SAHI (Akyon et al., 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sniper.chips.checks import check_positive
from sniper.errors import ConfigError


@dataclass(frozen=True)
class SliceSettings:
    """How an image is cut into windows.

    Attributes:
        size_px: side of a window, image px.
        overlap: smallest share of a window that the next one covers too, from 0 to below 1.

    Raises:
        ConfigError: the size is not positive, or the windows would not move on.
    """

    size_px: int
    overlap: float

    def __post_init__(self) -> None:
        if not 1 <= self.size_px < math.inf or not 0 <= self.overlap < 1:
            raise ConfigError(
                "windows need a positive size and an overlap from 0 to below 1",
                where="TEST.SLICE_SIZE, TEST.SLICE_OVERLAP",
                got=f"{self.size_px}, {self.overlap}",
            )


def slice_windows(width: int, height: int, settings: SliceSettings) -> np.ndarray:
    """Windows of equal size that cover the image; the last ones are moved inwards.

    Args:
        width: image width, px.
        height: image height, px.
        settings: size and overlap; windows of an image that is smaller end where it ends.

    Returns:
        (K, 4) float64 x1 y1 x2 y2, image px, row by row.

    Raises:
        ConfigError: a side is not positive.
    """
    check_positive("slice_windows", width=width, height=height)
    starts_y = _starts(height, settings)
    starts_x = _starts(width, settings)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(starts_y, starts_x, indexing="ij"))
    end_x, end_y = x + min(settings.size_px, width), y + min(settings.size_px, height)
    return np.stack([x, y, end_x, end_y], axis=1).astype(np.float64)


def _starts(side: int, settings: SliceSettings) -> np.ndarray:
    """Where the windows of one axis begin."""
    last = max(side - settings.size_px, 0)
    # Rounded first: 0.7 * 10 is a little less than 7, which would ask for a step of 4.
    shared = math.ceil(round(settings.size_px * settings.overlap, 6))
    step = max(settings.size_px - shared, 1)
    return np.minimum(np.arange(math.ceil(last / step) + 1) * step, last)

"""How to test what a suggested pyramid trains: levels, windows for `--mode slice`, batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.tools.explain.suggest_pyramid import BoxSizes, InputLimits, Pyramid

# Feature maps of larger images take gigabytes: these are cut into windows.
_LARGE_PX = 3000
# Images of more than so many times the size of others: levels in px suit only some of them.
_MIXED_SIZES = 1.5
# Windows hold several chips, so that fewer objects lie at their borders.
_CHIPS_IN_WINDOW, _LARGEST_WINDOW_PX = 4, 1024
_LEAST_OVERLAP, _MOST_OVERLAP = 0.2, 0.5
# Network px of a batch, and most windows in it.
_PX_OF_BATCH, _MOST_IN_BATCH = 1.5e6, 16


@dataclass(frozen=True)
class TestSuggestion:
    """Values of the TEST section.

    Attributes:
        scales: short side and longest long side of each level, px.
        valid_ranges: of each level, image px; -1 is open.
        batch_images: windows at once, of each level.
        slices: whether windows are to be the mode of testing; else they only suit `--mode slice`.
        slice_factor: network px per image px in the windows: that of the finest level.
        slice_size: side of a window, image px.
        slice_overlap: least overlap, as a share of the side.
        slice_with_image: whether the whole image is looked at as well: it is where it was trained.
        slice_batch_images: windows at once.
    """

    scales: tuple[tuple[int, int], ...]
    valid_ranges: tuple[tuple[int, int], ...]
    batch_images: tuple[int, ...]
    slices: bool
    slice_factor: float
    slice_size: int
    slice_overlap: float
    slice_with_image: bool
    slice_batch_images: int

    def pixels(self, width: float, height: float) -> float:
        """Network px of all passes over an image of this size, in the mode of testing."""
        ratio = max(width, height) / min(width, height)
        whole = [min(a * a * ratio, b * b / ratio) for a, b in self.scales]
        if not self.slices:
            return sum(whole)
        step = self.slice_size * (1 - self.slice_overlap)
        count = np.prod(
            [max(1, -(-(side - self.slice_size) // step) + 1) for side in (width, height)]
        )
        windows = float(count) * (self.slice_size * self.slice_factor) ** 2
        return windows + (whole[-1] if self.slice_with_image else 0)


def suggest_test(pyramid: Pyramid, limits: InputLimits, sizes: BoxSizes) -> TestSuggestion:
    """The same levels at test time."""
    short, long = float(np.median(sizes.image_short)), float(np.median(sizes.image_long))
    factors = list(pyramid.factors)
    whole = pyramid.long_side is not None
    pairs = [
        _pair(factor * short, 1.15 * factor * long)
        for factor in (factors[:-1] if whole else factors)
    ]
    if pyramid.long_side is not None:
        low = _pair(1.2 * factors[-1] * short, 0)[0]
        pairs.append((min(low, pyramid.long_side), pyramid.long_side))
    several = len(factors) > 1
    size, overlap = _window(pyramid, limits, sizes)
    window_px = size * factors[0]
    few, many = np.percentile(sizes.image_long, (5, 95)).tolist()
    return TestSuggestion(
        scales=tuple(pairs),
        # Wider than in training, as in 2018: two levels may see an object at a border of a range.
        valid_ranges=tuple(
            (round(0.75 * low) if low > 0 else -1, round(1.15 * high) if high > 0 else -1)
            for low, high in pyramid.valid_ranges
        ),
        batch_images=tuple(_batch(a * b) for a, b in pairs),
        # Several levels in px bring objects of all images near trained sizes; one alone does not.
        slices=max(pairs[0]) > _LARGE_PX or (not (several or whole) and many > _MIXED_SIZES * few),
        slice_factor=factors[0],
        slice_size=size,
        slice_overlap=overlap,
        slice_with_image=several or whole,
        slice_batch_images=_batch(window_px**2),
    )


def _window(pyramid: Pyramid, limits: InputLimits, sizes: BoxSizes) -> tuple[int, float]:
    """Side of a window in image px, and an overlap that holds what only windows find."""
    network_px = max(limits.chip_size, min(_CHIPS_IN_WINDOW * limits.chip_size, _LARGEST_WINDOW_PX))
    size = network_px / pyramid.factors[0]
    largest = float(np.percentile(sizes.long_side, 99))
    if pyramid.valid_ranges[0][1] > 0:
        # Larger ones are found in the whole image.
        largest = min(largest, pyramid.valid_ranges[0][1])
    size = max(32, round(max(size, largest / _MOST_OVERLAP) / 8) * 8)
    overlap = float(np.clip(np.ceil(20 * largest / size) / 20, _LEAST_OVERLAP, _MOST_OVERLAP))
    return size, round(overlap, 2)


def _batch(pixels: float) -> int:
    return int(np.clip(_PX_OF_BATCH // max(pixels, 1), 1, _MOST_IN_BATCH))


def _pair(short: float, long: float) -> tuple[int, int]:
    """Sides in multiples of 16 px."""
    a, b = (max(16, round(side / 16) * 16) for side in (short, long))
    return a, max(a, b)

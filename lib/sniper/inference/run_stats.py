"""How long a run took, stage by stage, and how many pixels it looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = ("read", "resize", "forward", "merge", "masks")


def level_stage(index: int) -> str:
    """The part of "forward" that a level takes, counted from 0."""
    return f"forward {index + 1}"


@dataclass(frozen=True)
class RunStats:
    """Figures of a run; `a + b` are those of both together.

    Attributes:
        images: images that were detected on.
        total_s: seconds that passed, of all processes together.
        seconds: seconds of each of STAGES, and of the network on each level (`level_stage`). Images
            are read and resized by threads while the network computes, so the stages may add up to
            more than the total.
        pixels: network px of all windows.
        pyramid_pixels: network px of all images on all levels in full.
    """

    images: int = 0
    total_s: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    pixels: float = 0.0
    pyramid_pixels: float = 0.0

    def __add__(self, other: RunStats) -> RunStats:
        return RunStats(
            self.images + other.images,
            self.total_s + other.total_s,
            {s: self.seconds.get(s, 0.0) + other.seconds.get(s, 0.0) for s in self._stages(other)},
            self.pixels + other.pixels,
            self.pyramid_pixels + other.pyramid_pixels,
        )

    def _stages(self, other: RunStats) -> list[str]:
        """STAGES, then those of levels."""
        return list(dict.fromkeys([*STAGES, *sorted({*self.seconds, *other.seconds})]))

    @property
    def pixel_share(self) -> float:
        """Pixels relative to the full pyramid; NaN before the first image."""
        return self.pixels / self.pyramid_pixels if self.pyramid_pixels else float("nan")

    @property
    def images_per_s(self) -> float:
        """Images per second of one process; NaN before the first image."""
        return self.images / self.total_s if self.total_s else float("nan")

    def as_dict(self) -> dict[str, object]:
        """All figures, ready for JSON."""
        return {
            "images": self.images,
            "total_s": self.total_s,
            "seconds": {stage: self.seconds.get(stage, 0.0) for stage in self._stages(self)},
            "pixels": self.pixels,
            "pyramid_pixels": self.pyramid_pixels,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunStats:
        """Inverse of `as_dict`."""
        return cls(**values)

    def table(self) -> str:
        """The figures for the eye: ms an image of every stage, images/s, share of pixels."""
        if not self.images:
            return "no images"
        stages = [
            f"{stage} {1000 * self.seconds.get(stage, 0.0) / self.images:.1f}" for stage in STAGES
        ]
        total = 1000 * self.total_s / self.images
        return (
            f"ms an image: {', '.join(stages)}; total {total:.1f} ({self.images_per_s:.2f} images/s"
            f"); {100 * self.pixel_share:.1f} % of the full pyramid's pixels"
        )

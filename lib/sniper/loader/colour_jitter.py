"""Colour jitter of training chips: brightness, contrast, saturation and hue drawn for each chip.

All four are linear in blue, green and red, so that they become one matrix, applied once and rounded
once: brightness first, then contrast, saturation and hue. The hue turns in the plane of equal
brightness of YIQ, which needs no other colour space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from sniper.chips.streams import stream_seeds
from sniper.errors import ConfigError

# Kind of draw, apart from those of `sniper.chips.streams` and of the labels.
_STREAM = 0x4A495454
_GREY = np.array([0.114, 0.587, 0.299])  # of blue, green, red
# I and Q of NTSC, from blue, green, red.
_YIQ = np.array([_GREY, [-0.3213, -0.2744, 0.5957], [0.3111, -0.5226, 0.2115]])
_YIQ[1:] -= _YIQ[1:].mean(axis=1, keepdims=True)  # grey stays grey, to the last bit that matters


@dataclass(frozen=True)
class ColourJitter:
    """How far colours are changed at most.

    Attributes:
        brightness: the factor of all numbers is drawn from 1 - b to 1 + b; 0 ... 1.
        contrast: the same for their distance from the mean grey of the chip.
        saturation: the same for the distance of a pixel from its own grey.
        hue: colours turn by up to this share of a circle, either way; 0 ... 0.5.

    Raises:
        ConfigError: a number is out of range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        factors = (self.brightness, self.contrast, self.saturation)
        if not (all(0 <= factor <= 1 for factor in factors) and 0 <= self.hue <= 0.5):
            raise ConfigError(
                "colour jitter takes numbers from 0 to 1, for the hue to 0.5",
                where="TRAIN.COLOR_JITTER",
                got=(*factors, self.hue),
            )

    def __bool__(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def apply(self, pixels: np.ndarray, seed: int, image_id: int) -> None:
        """Changes the colours of a chip in place.

        Args:
            pixels: (h, w, 3) uint8 BGR, the content of the chip alone.
            seed: of the sample: it follows from the run's seed, the epoch and the sample's place.
            image_id: of the chip's image.
        """
        if not pixels.size:
            return
        stream = np.random.default_rng(int(stream_seeds(seed, _STREAM, image_id)))
        # All four are drawn, so that one does not depend on whether another is off.
        drawn = stream.uniform(-1, 1, 4)
        brightness, contrast, saturation = (
            1 + most * share
            for most, share in zip((self.brightness, self.contrast, self.saturation), drawn)
        )
        grey = float(np.array(cv2.mean(pixels)[:3]) @ _GREY) if self.contrast else 0.0
        matrix = np.empty((3, 4))
        matrix[:, :3] = _turn(self.hue * float(drawn[3])) @ _towards_grey(saturation)
        # Neither saturation nor hue moves a grey: the mean grey may be added last.
        matrix[:, :3] *= brightness * contrast
        matrix[:, 3] = (1 - contrast) * brightness * grey
        cv2.transform(pixels, matrix, pixels)


def _towards_grey(saturation: float) -> np.ndarray:
    """(3, 3): keeps a share of the distance from the pixel's grey."""
    return saturation * np.eye(3) + (1 - saturation) * np.tile(_GREY, (3, 1))


def _turn(share: float) -> np.ndarray:
    """(3, 3): turns I and Q by a share of a circle."""
    if not share:
        return np.eye(3)
    angle = 2 * math.pi * share
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(_YIQ) @ rotation @ _YIQ

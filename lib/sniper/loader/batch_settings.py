"""What the arrays of a training batch look like, and how their images are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sniper.errors import ConfigError
from sniper.loader.colour_jitter import ColourJitter
from sniper.targets.contract import BatchContract


@dataclass(frozen=True, eq=False)
class BatchSettings:
    """What the arrays of a training batch look like, and how their images are read.

    Attributes:
        contract: names, order and shapes of the arrays, and who makes them.
        pixel_means: three means, BGR.
        reduced_decoding: chips at half of the image's size or less are cut from a JPEG that is
            decoded at 1/2, 1/4 or 1/8.
        legacy_boxes: chips are cut on whole image px, and boxes end before their last px does, as
            in 2018: what chips show is up to one image px beside their boxes. False: exact.
        min_visible: share of an object inside a chip from which on the box head takes it for one.
        jitter: how colours are changed.

    Raises:
        ConfigError: an image has three channel means.
    """

    contract: BatchContract
    pixel_means: Sequence[float]
    reduced_decoding: bool = False
    legacy_boxes: bool = False
    min_visible: float = 0.0
    jitter: ColourJitter = field(default_factory=ColourJitter)

    def __post_init__(self) -> None:
        if len(self.pixel_means) != 3:
            raise ConfigError(
                "an image has three channel means",
                where="network.PIXEL_MEANS",
                got=list(self.pixel_means),
            )

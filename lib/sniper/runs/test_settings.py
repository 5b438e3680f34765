"""Ways to test with one network: a grid of keys of TEST that change neither graph nor weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from easydict import EasyDict

from sniper.chips.pyramid import test_factor
from sniper.runs.levels import mode_in_force
from sniper.runs.resolve import chip_settings

MODES = ("single", "pyramid", "focus", "slice")

# Keys that have a value for each level.
_PER_LEVEL = (
    *("SCALES", "VALID_RANGES", "BATCH_IMAGES", "SKIP_STRIDES", "DO_PRUNING", "CHIP_HYPERPARAMS"),
    "USE_CACHE",
)
# A map value above it is a FocusPixel: times the recipe's.
_FOCUS_FACTORS = (0.5, 1.0, 2.0)
# Slices show objects as large as the finest level does, or smaller.
_SLICE_SHARES = (1.0, 0.5)
# Network px of a side of a slice, where chips are smaller: context of objects, and fewer borders.
_LEAST_SLICE_SIDE = 320

Scale = tuple[int, int]


@dataclass(frozen=True)
class Setting:
    """One way to test.

    Attributes:
        name: for tables and pictures.
        mode: `single`, `pyramid`, `focus` or `slice`.
        keys: of TEST, without that prefix, in the order of a file.
    """

    name: str
    mode: str
    keys: dict[str, Any]

    def overrides(self) -> list[str]:
        """The keys as `KEY VALUE ...` of the command line."""
        return [text for key, value in self.keys.items() for text in (f"TEST.{key}", str(value))]


def settings_grid(
    cfg: EasyDict, modes: Sequence[str], width: float, height: float
) -> list[Setting]:
    """The settings that are tried, cheap modes first.

    Args:
        cfg: the recipe.
        modes: some of `MODES`; `focus` is left out where the network does not find FocusPixels.
        width: of an image of the set, px.
        height: of an image of the set, px.

    Raises:
        ConfigError: only `focus` is asked for, and the network cannot do it.
    """
    if list(modes) == ["focus"]:
        mode_in_force(cfg, "focus")
    settings = []
    for mode in MODES:
        if mode in modes:
            settings += _GRIDS[mode](cfg, width, height)
    return settings


def _scales(cfg: EasyDict) -> list[Scale]:
    """Scales of the recipe, the smallest image first."""
    return sorted({(scale[0], scale[1]) for scale in cfg.TEST.SCALES}, key=math.prod)


def _single(cfg: EasyDict, width: float, height: float) -> list[Setting]:
    scales = _scales(cfg)
    between = [
        (round(math.sqrt(low[0] * high[0])), round(math.sqrt(low[1] * high[1])))
        for low, high in zip(scales, scales[1:])
    ]
    chosen = sorted({*scales, *between}, key=math.prod)
    return [
        Setting(
            f"single {short}x{long}", "single", {"MODE": "single", "SINGLE_SCALE": [short, long]}
        )
        for short, long in chosen
    ]


def _pyramid(cfg: EasyDict, width: float, height: float) -> list[Setting]:
    order = sorted(range(len(cfg.TEST.SCALES)), key=lambda k: math.prod(cfg.TEST.SCALES[k]))
    settings = []
    for count in range(2, len(order) + 1):
        for start in range(len(order) - count + 1):
            coarse_first = order[start : start + count]
            settings.append(_some_levels(cfg, coarse_first))
    return settings


def _some_levels(cfg: EasyDict, coarse_first: Sequence[int]) -> Setting:
    """The recipe's pyramid with these of its levels; the outer ones find what is beyond as well."""
    test, levels = cfg.TEST, sorted(coarse_first)
    keys: dict[str, Any] = {"MODE": "pyramid"}
    name = f"pyramid, {len(levels)} levels"
    if len(levels) == len(test.SCALES):
        return Setting(name, "pyramid", keys)
    for key in _PER_LEVEL:
        values = test[key]
        if isinstance(values, (list, tuple)) and len(values) == len(test.SCALES):
            keys[key] = [_plain(values[level]) for level in levels]
    ranges = keys["VALID_RANGES"]
    ranges[levels.index(coarse_first[0])][1] = -1.0
    ranges[levels.index(coarse_first[-1])][0] = -1.0
    short, long = test.SCALES[coarse_first[-1]]
    return Setting(f"{name} to {short}x{long}", "pyramid", keys)


def _focus(cfg: EasyDict, width: float, height: float) -> list[Setting]:
    test = cfg.TEST
    if not test.AUTO_FOCUS:
        return []
    settings = []
    for factor in _FOCUS_FACTORS:
        rows = [
            [dilation, min(1.0, threshold * factor) if threshold > 0 else threshold, side]
            for dilation, threshold, side in test.CHIP_HYPERPARAMS
        ]
        keys: dict[str, Any] = {"MODE": "focus"}
        if factor != 1:
            keys["CHIP_HYPERPARAMS"] = rows
        settings.append(Setting(f"focus, thresholds x{factor:g}", "focus", keys))
    return settings


def _slice(cfg: EasyDict, width: float, height: float) -> list[Setting]:
    scales = _scales(cfg)
    finest = test_factor(round(width), round(height), scales[-1])
    side = max(chip_settings(cfg).chip_size, _LEAST_SLICE_SIDE)
    settings = []
    for share in _SLICE_SHARES:
        factor = round(finest * share, 3)
        size = max(32, round(side / factor))
        # One window that holds the image is mode single.
        if factor < 0.01 or size >= max(width, height):
            continue
        keys = {
            "MODE": "slice",
            "SLICE_FACTOR": factor,
            "SLICE_SIZE": size,
            "SINGLE_SCALE": list(scales[0]),
            "SLICE_WITH_IMAGE": True,
        }
        settings.append(Setting(f"slice x{factor:g}, {size} px", "slice", keys))
    return settings


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


_GRIDS: dict[str, Callable[[EasyDict, float, float], list[Setting]]] = {
    "single": _single,
    "pyramid": _pyramid,
    "focus": _focus,
    "slice": _slice,
}

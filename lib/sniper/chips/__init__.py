"""SNIPER chips as a library, for any trainer: NumPy in, NumPy out, no MXNet.

    from sniper.chips import ChipSettings, make_epoch
    from sniper.data import Record

    settings = ChipSettings(
        scales=[3.0, 1.667, 512.0],                       # pyramid, finest level first
        valid_ranges=[[-1, 80], [32, 150], [120, -1]],    # sqrt(area) in image px, one per level
    )
    epoch = make_epoch(records, settings, seed=0, epoch=0, batch_size=16)
    for record_index, chip_index in epoch.samples:        # training order, padded to whole batches
        chip = epoch.chips[record_index][chip_index]      # rect in image px, factor, level, rows

| what | where |
|---|---|
| the chips of an epoch (paper section 3) | `make_epoch`, `ChipSettings`, `Epoch` |
| a chip, and many of them in flat arrays | `Chip`, `ChipTable` |
| the pyramid: factors of its levels | `level_factors`, `level_size`, `test_factor` |
| which box belongs to which level, and what becomes of each box | `box_levels`, `measure` |
| the boxes of a chip in chip px; anchors' labels; FocusPixels | `sniper.targets` |
| FocusChips of a map of probabilities (AutoFocus, section 3.2) | `focus_chips`, `FocusSettings` |
| uniform overlapping windows | `slice_windows`, `SliceSettings` |
"""

from sniper.chips.box_levels import BoxLevels, box_levels
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.chip_table import Chip, ChipTable
from sniper.chips.focus import FocusSettings, focus_chips
from sniper.chips.measures import Measures, measure
from sniper.chips.pyramid import level_factors, level_size, test_factor
from sniper.chips.sampler import Epoch, make_epoch
from sniper.chips.slices import SliceSettings, slice_windows
from sniper.chips.stats import EpochStats, GtFate, LevelStats

__all__ = [
    "BoxLevels",
    "Chip",
    "ChipSettings",
    "ChipTable",
    "Epoch",
    "EpochStats",
    "FocusSettings",
    "GtFate",
    "LevelStats",
    "Measures",
    "SliceSettings",
    "box_levels",
    "focus_chips",
    "level_factors",
    "level_size",
    "make_epoch",
    "measure",
    "slice_windows",
    "test_factor",
]

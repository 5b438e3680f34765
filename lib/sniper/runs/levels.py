"""Which levels each mode of testing looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from easydict import EasyDict

from sniper.chips.focus import FocusSettings
from sniper.chips.pyramid import Scale, level_factors
from sniper.chips.slices import SliceSettings
from sniper.errors import ConfigError
from sniper.inference.level import FOCUS, SAME, SLICES, Level
from sniper.inference.merge_levels import MergeSettings
from sniper.inference.proposal_cap import ProposalCap
from sniper.models.heads.proposals import Proposals
from sniper.models.networks import network_of

# Factors that differ by less show objects of about one size: 2018's levels are 1.8 apart and more.
_SAME_SCALE = 1.3


def levels_of(cfg: EasyDict, mode: str, batch_images: int | None = None) -> list[Level]:
    """What a mode looks at; `batch_images` windows per device in one pass, if given."""
    test = cfg.TEST
    common = {"min_score": test.MIN_SCORE, "max_pixels": test.MAX_PIXELS}
    levels = [replace(level, cap=_cap(cfg, level), **common) for level in _LEVELS[mode](cfg)]
    if batch_images is None:
        return levels
    if batch_images < 1:
        raise ConfigError(
            "the batch must hold an image", where="batch_images", got=batch_images, expected=">= 1"
        )
    return [replace(level, batch_images=batch_images) for level in levels]


def mode_in_force(cfg: EasyDict, mode: str | None = None) -> str:
    """`single`, `pyramid`, `focus` or `slice`.

    Raises:
        ConfigError: the mode is unknown, or the network cannot do it.
    """
    where = "mode" if mode else "TEST.MODE"
    mode = mode or cfg.TEST.MODE
    if mode == "auto":
        return "focus" if cfg.TEST.AUTO_FOCUS else "pyramid"
    if mode not in _LEVELS:
        raise ConfigError("this mode is unknown", got=mode, expected=", ".join(["auto", *_LEVELS]))
    if mode == "focus" and not cfg.TEST.AUTO_FOCUS:
        raise ConfigError(
            "this network was not trained to find FocusPixels",
            where=where,
            got="focus, but TEST.AUTO_FOCUS is false",
            fix="train with TRAIN.AUTO_FOCUS true (sniper_res18_toy_autofocus, for example), or "
            "take another mode",
        )
    return mode


def untrained_windows(
    levels: Sequence[Level], trained_scales: Sequence[Scale], width: int, height: int
) -> str | None:
    """What is wrong with windows (mode slice) that show objects larger or smaller than training.

    Args:
        levels: what a mode looks at.
        trained_scales: `TRAIN.SCALES`.
        width: of an image, px.
        height: of an image, px.

    Returns:
        A warning; None where a level of training has about the factor of the windows.
    """
    windows = [level.scale for level in levels if level.windows == SLICES]
    factors = level_factors(width, height, trained_scales)
    for scale in windows:
        if isinstance(scale, (int, float)) and all(
            max(scale / factor, factor / scale) > _SAME_SCALE for factor in factors
        ):
            trained = ", ".join(f"x{factor:.3g}" for factor in factors)
            return (
                f"mode slice shows image px at x{scale:.3g} (TEST.SLICE_FACTOR), training showed "
                f"them at {trained}: objects of other sizes than were trained are often missed; "
                f"--set TEST.SLICE_FACTOR {factors[0]:.3g} shows small objects as training did "
                "(`sniper suggest-scales` writes fitting TEST.SLICE_* keys)"
            )
    return None


def merge_settings(cfg: EasyDict) -> MergeSettings:
    """NMS, cap and box voting of a configuration."""
    test = cfg.TEST
    return MergeSettings(test.NMS, test.NMS_SIGMA, test.MAX_PER_IMAGE, test.BOX_VOTING)


def _cap(cfg: EasyDict, level: Level) -> ProposalCap | None:
    """None where a window has no more proposals than a chip had in training, as in 2018.

    A network without proposals has none too many.
    """
    if not network_of(cfg.symbol).has(Proposals):
        return None
    per_chip = cfg.TRAIN.PROPOSAL_OP.post_nms_top_n
    if not cfg.TEST.PROPOSALS_AS_TRAINED or cfg.TEST.PROPOSAL_OP.post_nms_top_n <= per_chip:
        return None
    return ProposalCap(per_chip, cfg.TRAIN.CHIP_SIZE, level.valid_range)


def _pyramid(cfg: EasyDict) -> list[Level]:
    test = cfg.TEST
    skipped = test.SKIP_STRIDES or ((),) * len(test.SCALES)
    rows = zip(test.SCALES, test.BATCH_IMAGES, test.VALID_RANGES, skipped)
    return [
        Level(tuple(scale), batch, tuple(valid_range), skip_strides=tuple(strides))
        for scale, batch, valid_range, strides in rows
    ]


def _focus(cfg: EasyDict) -> list[Level]:
    test = cfg.TEST
    # DO_PRUNING says of each level whether it looks at FocusChips, which the level before finds.
    pruned = [*test.DO_PRUNING, False]
    return [
        Level(
            level.scale,
            level.batch_images,
            level.valid_range,
            windows=FOCUS if pruned[index] else SAME,
            focus=FocusSettings(*test.CHIP_HYPERPARAMS[index]) if pruned[index + 1] else None,
            prune=bool(pruned[index]),
        )
        for index, level in enumerate(_pyramid(cfg))
    ]


def _single(cfg: EasyDict) -> list[Level]:
    """One level sees the whole image and finds objects of all sizes."""
    scales = [tuple(scale) for scale in cfg.TEST.SCALES]
    scale = tuple(cfg.TEST.SINGLE_SCALE or sorted(scales)[len(scales) // 2])
    batch = cfg.TEST.BATCH_IMAGES[scales.index(scale)] if scale in scales else 1
    return [Level(scale, batch)]


def _slice(cfg: EasyDict) -> list[Level]:
    """Uniform windows, which leave objects at their borders to the other windows and the image."""
    test = cfg.TEST
    windows = Level(
        test.SLICE_FACTOR,
        test.SLICE_BATCH_IMAGES,
        windows=SLICES,
        slices=SliceSettings(test.SLICE_SIZE, test.SLICE_OVERLAP),
        prune=bool(test.SLICE_WITH_IMAGE),
    )
    return [*(_single(cfg) if test.SLICE_WITH_IMAGE else []), windows]


_LEVELS: dict[str, Callable[[EasyDict], list[Level]]] = {
    "single": _single,
    "pyramid": _pyramid,
    "focus": _focus,
    "slice": _slice,
}

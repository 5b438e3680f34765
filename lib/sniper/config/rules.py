"""Run-time rules: values that follow from other keys once everything is merged."""

from __future__ import annotations

import logging
import math
from typing import Any

from sniper.config.merge import Merged

logger = logging.getLogger(__name__)

COCO_SCALES = (3.0, 1.667, 512.0)
COCO_CLASSES = 81
# What the training operators of 2018 used, without and with masks.
PRE_NMS_TOP_N = (-1, 6000)

# Per-level lists of TEST and what a level gets that 2018 files do not name.
_PER_LEVEL = {
    "TEST.DO_PRUNING": False,
    "TEST.USE_CACHE": False,
    "TEST.CHIP_HYPERPARAMS": (-1, -1.0, -1),
}


def note_file_values(merged: Merged) -> None:
    """Keeps what the file alone says, before `--set` changes it, where that means something."""
    if merged.values["TRAIN.REFERENCE_IMAGES"] is None:
        merged.values["TRAIN.REFERENCE_IMAGES"] = merged.values["TRAIN.BATCH_IMAGES"]


def apply_rules(merged: Merged) -> None:
    """Fills derived values and applies the 2018 rules, in place."""
    note_file_values(merged)
    _override_coco_scales(merged)
    _switch_off_heads_without_detector(merged.values)
    _explain_heads(merged.values)
    _choose_nms(merged)
    _fill_derived(merged)
    _fit_to_levels(merged.values)


def is_full_coco(kind: str, num_classes: int) -> bool:
    """Whether `dataset.dataset` and `dataset.NUM_CLASSES` are those that the 2018 rule is for."""
    return kind == "coco" and num_classes == COCO_CLASSES


def _override_coco_scales(merged: Merged) -> None:
    """2018 behaviour: COCO with 81 classes ignores the pyramid of the file."""
    values = merged.values
    if not is_full_coco(values["dataset.dataset"], values["dataset.NUM_CLASSES"]):
        return
    if not values["TRAIN.COCO_SCALE_OVERRIDE"]:
        return
    if "TRAIN.SCALES" in merged.explicit:
        # A saved configuration must not fall under the rule when it is loaded again.
        values["TRAIN.COCO_SCALE_OVERRIDE"] = False
        logger.info("training pyramid %s: given explicitly", values["TRAIN.SCALES"])
        return
    if values["TRAIN.SCALES"] != COCO_SCALES:
        logger.info(
            "training pyramid %s replaces %s: 2018 rule for COCO (TRAIN.COCO_SCALE_OVERRIDE)",
            COCO_SCALES,
            values["TRAIN.SCALES"],
        )
    values["TRAIN.SCALES"] = COCO_SCALES


def _switch_off_heads_without_detector(values: dict[str, Any]) -> None:
    if not values["TRAIN.ONLY_PROPOSAL"]:
        return
    for path in ("TRAIN.AUTO_FOCUS", "TRAIN.WITH_MASK"):
        if values[path]:
            logger.info("%s is ignored: TRAIN.ONLY_PROPOSAL trains the RPN only", path)
            values[path] = False


def _explain_heads(values: dict[str, Any]) -> None:
    """Says what happens where the heads of training and test differ."""
    if values["TRAIN.ONLY_PROPOSAL"]:
        return
    if values["TEST.AUTO_FOCUS"] and not values["TRAIN.AUTO_FOCUS"]:
        logger.info(
            "TEST.AUTO_FOCUS without TRAIN.AUTO_FOCUS: only weights that were trained with the "
            "FocusPixel branch can be tested"
        )


def _choose_nms(merged: Merged) -> None:
    """`--set TEST.NMS 0.45` alone means hard NMS: the sigma of the file gives way, and so on."""
    values, source = merged.values, merged.source
    hard, soft = "TEST.NMS", "TEST.NMS_SIGMA"
    if values[hard] <= 0 or values[soft] <= 0 or source[hard] == source[soft]:
        return
    loser = soft if source[hard] > source[soft] else hard
    logger.info("%s is off: %s was given", loser, hard if loser == soft else soft)
    values[loser] = -1.0


def _fill_derived(merged: Merged) -> None:
    values, source = merged.values, merged.source
    count, factors = "network.NUM_ANCHORS", ("network.ANCHOR_RATIOS", "network.ANCHOR_SCALES")
    # A recipe that extends another one may change the anchors and leave the counting to us.
    if values[count] is None or max(source[path] for path in factors) > source[count]:
        values[count] = math.prod(len(values[path]) for path in factors)
    epoch = "TEST.TEST_EPOCH"
    # A recipe that extends another one, or `--set`, may train for longer or shorter: what the base
    # tested is not meant then, but the newest checkpoint.
    if source[epoch] < source["TRAIN.end_epoch"]:
        values[epoch] = None
    if values["TRAIN.PROPOSAL_OP.pre_nms_top_n"] is None:
        values["TRAIN.PROPOSAL_OP.pre_nms_top_n"] = PRE_NMS_TOP_N[values["TRAIN.WITH_MASK"]]
    # Two names of one number: the stronger source wins, the new name at equal strength.
    old, new = "TEST.RPN_POST_NMS_TOP_N", "TEST.PROPOSAL_OP.post_nms_top_n"
    if source[old] > source[new]:
        values[new] = values[old]
    else:
        values[old] = values[new]


def _fit_to_levels(values: dict[str, Any]) -> None:
    """Gives every per-level list of TEST one entry per level."""
    levels = len(values["TEST.SCALES"])
    if isinstance(values["TEST.BATCH_IMAGES"], int):
        values["TEST.BATCH_IMAGES"] = (values["TEST.BATCH_IMAGES"],) * levels
    for path, filler in _PER_LEVEL.items():
        values[path] = (values[path] + (filler,) * levels)[:levels]

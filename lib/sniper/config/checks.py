"""Checks across keys; every problem is reported, not only the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]

# As `sniper.chips.pyramid`, which this room does not know.
LEAST_LONG_SIDE_PX = 16


def find_problems(values: Values) -> list[str]:
    """Sentences about values that do not fit together; empty when all is well."""
    checks = (_devices, _anchors, _train_pyramid, _train_targets, _lr_steps, _test_pyramid)
    more = (_nms, _heads, _annotation_file, _early_stopping)
    return [problem for check in (*checks, *more) for problem in check(values)]


def parse_lr_steps(text: str) -> tuple[tuple[float, str], ...]:
    """`'5.33, 1600u'` -> ((5.33, "epochs"), (1600, "updates")); empty text -> ().

    Raises:
        ValueError: an entry is no finite number, or a number of updates is no integer.
    """
    steps: list[tuple[float, str]] = []
    for entry in (entry.strip() for entry in text.split(",")):
        if entry.endswith("u"):
            steps.append((int(entry[:-1]), "updates"))
        elif entry:
            steps.append((float(entry), "epochs"))
    if not all(math.isfinite(number) for number, _ in steps):
        raise ValueError(text)
    return tuple(steps)


def parse_gpus(text: str) -> tuple[int, ...]:
    """`'0,2'` -> (0, 2); `''`, `'cpu'` and `'cpu,cpu'` -> (); ValueError on anything else."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if set(entries) <= {"cpu"}:
        return ()
    ordinals = tuple(int(entry) for entry in entries)
    if min(ordinals) < 0 or len(set(ordinals)) != len(ordinals):
        raise ValueError
    return ordinals


def _devices(values: Values) -> Iterator[str]:
    try:
        parse_gpus(values["gpus"])
    except ValueError:
        yield (
            f"gpus: expected distinct device ordinals such as '0,1', or 'cpu', "
            f"got {values['gpus']!r}"
        )


def _annotation_file(values: Values) -> Iterator[str]:
    path = values["dataset.annotation_file"]
    sets = {*values["dataset.image_set"].split("+"), values["dataset.test_image_set"]}
    if path and "{set}" not in path and len(sets) > 1:
        yield (
            f"dataset.annotation_file: {path!r} would be the file of each of the sets "
            f"{', '.join(sorted(sets))}; write '{{set}}' where the set's name stands in it, e.g. "
            "'annotations/{set}.json', and name the sets (dataset.image_set, "
            "dataset.test_image_set) as the files are"
        )


def _early_stopping(values: Values) -> Iterator[str]:
    path = "TRAIN.EARLY_STOPPING"
    if not values[f"{path}.PATIENCE"]:
        if values[f"{path}.MIN_DELTA"]:
            yield f"{path}.MIN_DELTA: has no effect without {path}.PATIENCE"
        return
    if not values["TRAIN.VALIDATE_EVERY"]:
        yield f"{path}.PATIENCE: counts validations; set TRAIN.VALIDATE_EVERY to 1 or more"
    if not values["TRAIN.KEEP_BEST"]:
        yield f"{path}.PATIENCE: TRAIN.KEEP_BEST false would lose the weights that it is about"
    if values["TRAIN.ONLY_PROPOSAL"]:
        yield f"{path}.PATIENCE: a proposal network alone (TRAIN.ONLY_PROPOSAL) is not validated"


def _anchors(values: Values) -> Iterator[str]:
    ratios, scales = values["network.ANCHOR_RATIOS"], values["network.ANCHOR_SCALES"]
    count, product = values["network.NUM_ANCHORS"], len(ratios) * len(scales)
    if count != product:
        yield (
            f"network.NUM_ANCHORS: got {count}, expected {product} = {len(ratios)} ANCHOR_RATIOS "
            f"x {len(scales)} ANCHOR_SCALES (None computes it)"
        )
    chip, stride = values["TRAIN.CHIP_SIZE"], values["network.RPN_FEAT_STRIDE"]
    if chip % stride:
        yield f"TRAIN.CHIP_SIZE: {chip} is not a multiple of network.RPN_FEAT_STRIDE {stride}"


def _train_pyramid(values: Values) -> Iterator[str]:
    scales, ranges = values["TRAIN.SCALES"], values["TRAIN.VALID_RANGES"]
    if len(scales) != len(ranges):
        yield (
            f"TRAIN.VALID_RANGES: {len(ranges)} ranges for {len(scales)} TRAIN.SCALES; "
            "each level needs one"
        )
    yield from _bad_ranges("TRAIN.VALID_RANGES", ranges)
    yield from _bad_ranges("TRAIN.CHIP_RANGES", values["TRAIN.CHIP_RANGES"])
    for path in ("TRAIN.CHIP_RANGES", "TRAIN.SIDE_LIMITS"):
        if len(values[path]) not in (0, len(scales)):
            yield (
                f"{path}: {len(values[path])} entries for {len(scales)} TRAIN.SCALES; "
                "each level needs one, or none ([])"
            )
    if isinstance(scales[0], tuple):
        yield from _resolution_order(scales)
    else:
        yield from _factor_order(scales)


def _resolution_order(scales: Sequence[tuple[int, int]]) -> Iterator[str]:
    for low, high in scales:
        if low <= 0 and high <= 0:
            yield f"TRAIN.SCALES: ({low}, {high}) needs a positive min side or max side"
    for finer, coarser in zip(scales, scales[1:]):
        # Sides that are open (-1) in one of the two cannot be compared.
        sides = [(a, b) for a, b in zip(finer[::-1], coarser[::-1]) if a > 0 and b > 0]
        if sides and sides[0] < sides[0][::-1]:
            yield f"TRAIN.SCALES: {finer} before {coarser}; the finest level comes first"


def _factor_order(scales: Sequence[float]) -> Iterator[str]:
    if min(scales) <= 0:
        yield f"TRAIN.SCALES: factors must be positive, got {scales}"
    # The last entry is a long side in px as a rule, not a factor.
    factors = scales if scales[-1] < LEAST_LONG_SIDE_PX else scales[:-1]
    if list(factors) != sorted(factors, reverse=True):
        yield f"TRAIN.SCALES: factors {factors} must fall; the finest level comes first"


def _bad_ranges(path: str, ranges: Sequence[tuple[float, float]]) -> Iterator[str]:
    for low, high in ranges:
        if 0 <= high <= low:
            yield f"{path}: ({low:g}, {high:g}) holds no size; -1 leaves a side open"


def _train_targets(values: Values) -> Iterator[str]:
    positive = values["TRAIN.RPN_POSITIVE_OVERLAP"]
    negative = values["TRAIN.RPN_NEGATIVE_OVERLAP"]
    if negative > positive:
        yield (
            f"TRAIN.RPN_NEGATIVE_OVERLAP: {negative:g} is above "
            f"TRAIN.RPN_POSITIVE_OVERLAP {positive:g}"
        )
    for section in ("TRAIN", "TEST"):
        path = f"{section}.PROPOSAL_OP.pre_nms_top_n"
        if values[path] == 0:
            yield f"{path}: 0 keeps no box; -1 keeps all"


def _lr_steps(values: Values) -> Iterator[str]:
    text = values["TRAIN.lr_step"]
    try:
        steps = parse_lr_steps(text)
    except ValueError:
        yield (
            "TRAIN.lr_step: expected a comma list of epochs such as '5.33', or of updates such as "
            f"'1600u', got {text!r}"
        )
        return
    for unit in ("epochs", "updates"):
        numbers = [number for number, of in steps if of == unit]
        if (
            any(late <= early for early, late in zip(numbers, numbers[1:]))
            or min(numbers, default=1) <= 0
        ):
            yield f"TRAIN.lr_step: {unit} must be positive and increase, got {text!r}"


def _test_pyramid(values: Values) -> Iterator[str]:
    scales = values["TEST.SCALES"]
    for path in ("TEST.VALID_RANGES", "TEST.BATCH_IMAGES"):
        if len(values[path]) != len(scales):
            yield (
                f"{path}: {len(values[path])} entries for {len(scales)} TEST.SCALES; "
                "each level needs one"
            )
    skipped = values["TEST.SKIP_STRIDES"]
    if len(skipped) not in (0, len(scales)):
        yield (
            f"TEST.SKIP_STRIDES: {len(skipped)} entries for {len(scales)} TEST.SCALES; each level "
            "needs one, which may be empty"
        )
    yield from _bad_ranges("TEST.VALID_RANGES", values["TEST.VALID_RANGES"])
    for low, high in scales:
        if low > high:
            yield f"TEST.SCALES: ({low}, {high}) has a min side above its max side"
    mode, focus = values["TEST.MODE"], values["TEST.AUTO_FOCUS"]
    if mode == "focus" and not focus:
        yield (
            "TEST.MODE: focus needs a network with the FocusPixel branch (TRAIN.AUTO_FOCUS and "
            "TEST.AUTO_FOCUS true)"
        )
    single = values["TEST.SINGLE_SCALE"]
    if single is not None and single[0] > single[1]:
        yield f"TEST.SINGLE_SCALE: {tuple(single)} has a min side above its max side"
    if focus:
        if values["network.RPN_FEAT_STRIDE"] != 16:
            yield (
                "TEST.AUTO_FOCUS: works at network.RPN_FEAT_STRIDE 16 only, "
                f"got {values['network.RPN_FEAT_STRIDE']}"
            )
        if values["TEST.DO_PRUNING"][0]:
            yield "TEST.DO_PRUNING: the first level has no level before it; set it to false"


def _nms(values: Values) -> Iterator[str]:
    hard, sigma = values["TEST.NMS"], values["TEST.NMS_SIGMA"]
    if (hard > 0) == (sigma > 0):
        yield (
            f"TEST.NMS: exactly one of TEST.NMS {hard:g} (hard) and TEST.NMS_SIGMA {sigma:g} "
            "(soft) must be positive; set the other one to -1"
        )
    if hard > 1:
        yield f"TEST.NMS: an IoU lies between 0 and 1, got {hard:g}"


def _heads(values: Values) -> Iterator[str]:
    if values["TRAIN.AUTO_FOCUS"]:
        low, small, high = (
            values[f"TRAIN.AUTO_FOCUS_{name}"] for name in ("DC_LOW", "SMALL_THRESH", "DC_HIGH")
        )
        if not low < small <= high:
            yield (
                "TRAIN.AUTO_FOCUS: needs AUTO_FOCUS_DC_LOW < SMALL_THRESH <= DC_HIGH "
                f"(2018: 5, 64, 90), got {low:g}, {small:g}, {high:g}"
            )

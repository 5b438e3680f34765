"""RPN targets of 16 chips: labels, sampling, regression targets, and the dense arrays of the batch.

512x512 px, 32x32 cells, 21 anchors; 5, 20 or 100 objects a chip, of which a fifth is not valid at
the chip's level; 256 anchors sampled, 128 of them positive.

Sides
* ours: `RpnTargets` and `expand_rpn`, chip by chip.
* numpy: tables of column and row lengths, one outer product for each box and anchor shape; the
  implementation that ours replaced. NumPy's `Generator.choice` draws the samples.
* numpy-matrix: the matrix of all overlaps at once, as the 2018 code had it; the same otherwise.

Both peers are in sniper.targets.reference. All sides write into the arrays of one batch.
Compared: labels, targets and weights before sampling (labels and weights exactly, targets to 1e-6)
and, as the generators differ, the numbers of sampled labels in every chip.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

CHIPS, CELLS, CHIP_PX = 16, 32, 512
VALID_SHARE = 0.8
UNSAMPLED = {"batch_size": 10**6}


def inputs(rng: np.random.Generator, objects: int) -> Arrays:
    boxes = [make.objects(rng, CHIP_PX, CHIP_PX, objects) for _ in range(CHIPS)]
    return {
        "boxes": np.clip(np.rint(boxes), 0, CHIP_PX - 1).astype(np.float32),
        "num_valid": np.array(max(1, round(VALID_SHARE * objects))),
    }


def chips(arrays: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """Valid and other boxes of each chip."""
    count = int(arrays["num_valid"])
    return [(boxes[:count].copy(), boxes[count:].copy()) for boxes in arrays["boxes"]]


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """label, target and weight of all chips."""
    planes = (CHIPS, 4 * make.NUM_ANCHORS, CELLS, CELLS)
    label = np.zeros((CHIPS, make.NUM_ANCHORS * CELLS**2), np.float32)
    return label, np.zeros(planes, np.float32), np.zeros(planes, np.float32)


def named(sampled: tuple[np.ndarray, ...], full: tuple[np.ndarray, ...]) -> Arrays:
    label, target, weight = full
    counts = [(sampled[0] == value).sum(axis=1) for value in (-1, 0, 1)]
    return {"label": label, "target": target, "weight": weight, "counts": np.stack(counts)}


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import expand_rpn
    from sniper.targets.rpn import RpnTargets

    work, base = chips(arrays), make.base_anchors()
    out, seeds = batch(), itertools.count()

    def fill(targets: RpnTargets) -> tuple[np.ndarray, ...]:
        for chip, (valid, others) in enumerate(work):
            expand_rpn(*targets(valid, others, next(seeds)), *(array[chip] for array in out))
        return out

    targets = RpnTargets(base, make.STRIDE_PX, CHIP_PX)

    def outputs(sampled: tuple[np.ndarray, ...]) -> Arrays:
        kept = tuple(array.copy() for array in sampled)
        return named(kept, fill(RpnTargets(base, make.STRIDE_PX, CHIP_PX, **UNSAMPLED)))

    return Prepared(lambda: fill(targets), outputs)


def reference(name: str, arrays: Arrays) -> Prepared:
    from sniper.targets import reference as slow

    work, base = chips(arrays), make.base_anchors()
    out = batch()
    sampler = slow.NumpyChoice(0)

    def fill(targets: Any, draw: Any) -> tuple[np.ndarray, ...]:
        for chip, (valid, others) in enumerate(work):
            targets(valid, others, draw, tuple(array[chip] for array in out))
        return out

    targets = getattr(slow, name)(base, make.STRIDE_PX, CHIP_PX)

    def outputs(sampled: tuple[np.ndarray, ...]) -> Arrays:
        kept = tuple(array.copy() for array in sampled)
        return named(kept, fill(getattr(slow, name)(base, make.STRIDE_PX, CHIP_PX), None))

    return Prepared(lambda: fill(targets, sampler), outputs)


def numpy(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return reference("FactoredTargets", arrays)


def numpy_matrix(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return reference("MatrixTargets", arrays)


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    agreement.same_array(ours["counts"], peer["counts"], "sampled labels of a chip")
    agreement.same_array(ours["label"], peer["label"], "labels before sampling")
    agreement.same_array(ours["weight"], peer["weight"], "weights before sampling")
    targets = agreement.close_array(ours["target"], peer["target"], "targets", 1e-6)
    return f"labels and weights before sampling identical, {targets}"


CASE = Case(
    name="rpn_targets",
    summary="RPN labels and targets with sampling and dense output, 16 chips of 512 px",
    jobs=[
        Job(f"16 chips, {count} objects each", lambda rng, count=count: inputs(rng, count))
        for count in (5, 20, 100)
    ],
    sides={"ours": Side(ours), "numpy": Side(numpy), "numpy-matrix": Side(numpy_matrix)},
    compare=compare,
    goal={"numpy": 12.0, "numpy-matrix": 12.0},
    threads=(1,),
)

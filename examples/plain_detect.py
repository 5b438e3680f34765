"""Detection on one page: image -> pyramid levels -> network -> boxes of each level -> merged boxes.

    python examples/plain_detect.py picture.jpg plain.params              # of plain_train.py
    python examples/plain_detect.py picture.jpg SNIPER-0002.params --cfg my.yml

`Predictor` finds the same boxes (a test compares them) and adds what else there is: windows and
FocusChips, masks, batches, several devices, videos, threads that read ahead, archives, INT8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import sniper  # noqa: F401  (first of all: prepares the process for MXNet)

import mxnet as mx  # isort: skip
import numpy as np  # isort: skip

from sniper.chips import test_factor
from sniper.config import load_config
from sniper.data.class_names import numbered_class_names, read_class_names
from sniper.data.cut import chip_image, content_size
from sniper.data.detections import ImageDetections
from sniper.data.image import read_image
from sniper.inference.decode import ChipDetections, to_image
from sniper.inference.merge_levels import keep_confident, merge_levels
from sniper.models.assembly import (
    DetectorSpec,
    WindowOutputs,
    build_detector,
    decode,
    inference_input_shapes,
    short_output_names,
)
from sniper.models.fit import fit_params
from sniper.models.weights import Params, for_test, read_params
from sniper.runs.plan import TestPlan, test_plan


def network_input(
    image: np.ndarray, factor: float, pixel_means: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The image at a level: (1, 3, h, w) RGB minus the means, and (1, 3) height, width, factor.

    Sides are padded to multiples of 32, so that few different shapes have to be bound.
    """
    height, width = image.shape[:2]
    sides = [int(np.ceil(side * factor / 32)) * 32 for side in (height, width)]
    whole = (0, 0, width, height)
    data = chip_image(image, whole, factor, (sides[0], sides[1]), pixel_means)
    content = content_size((height, width), whole, factor)
    return data[None], np.array([[*content, factor]], np.float32)


def run_network(
    spec: DetectorSpec, arg: Params, aux: Params, data: np.ndarray, im_info: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (R, 4) in px of the network's input, and class probabilities (R, C)."""
    symbol = build_detector(spec, train=False)
    shapes = inference_input_shapes(spec, 1, *data.shape[2:])
    bound = symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
    bound.copy_params_from(*fit_params(symbol, shapes, arg, aux, "the weights given"))
    outputs = bound.forward(is_train=False, data=data, im_info=im_info)
    names = short_output_names(symbol.list_outputs())
    by_name = {name: output.asnumpy() for name, output in zip(names, outputs)}
    # Every head has its say in turn: proposals, then their classes and refined boxes.
    found = decode(WindowOutputs(spec, by_name, row=0, im_info=im_info[0]))
    return found.boxes, found.scores


def detect(image: np.ndarray, plan: TestPlan, arg: Params, aux: Params) -> ImageDetections:
    """Detections of one image (H, W, 3) uint8 BGR, by class.

    Args:
        image: as `read_image` gives it.
        plan: the network, its levels, and how they are merged.
        arg: parameters, those for test in place.
        aux: batch-norm averages.
    """
    height, width = image.shape[:2]
    parts = []
    for index, level in enumerate(plan.levels):
        factor = test_factor(width, height, level.scale)
        data, im_info = network_input(image, factor, plan.pixel_means)
        boxes, scores = run_network(plan.detector, arg, aux, data, im_info)
        boxes_im = to_image(boxes, im_info[0, 2], legacy=plan.legacy_boxes)
        parts.append(keep_confident(ChipDetections(0, 0, boxes_im, scores), index))
    # What lies outside of a level's range of sizes goes; NMS over the rest, class by class.
    ranges = [level.valid_range for level in plan.levels]
    merged, _ = merge_levels([parts], ranges, plan.merge)
    return merged[0]


def main() -> None:
    """Reads the arguments and prints a line for each object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("weights", type=Path, help="a .params file")
    parser.add_argument("--cfg", default="sniper_mobilenetv2_toy", help="recipe of the weights")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score to print")
    args = parser.parse_args()
    if not 0 <= args.threshold <= 1:
        parser.error("--threshold: scores are from 0 to 1")
    plan = test_plan(load_config(args.cfg), mode="pyramid", devices="cpu")
    arg, aux = read_params(args.weights)
    found = detect(read_image(args.image), plan, for_test(arg), aux)
    number = plan.detector.num_classes
    names = read_class_names(args.weights.parent) or numbered_class_names(number)
    for (*box, score), klass in zip(found.rows.tolist(), found.classes.tolist()):
        if score >= args.threshold:
            print(f"{names[klass]} {score:.3f} at", *(f"{corner:.1f}" for corner in box))


if __name__ == "__main__":
    main()

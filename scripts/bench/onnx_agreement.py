"""Whether detectors of ONNX graphs find what MXNet finds: every network, every installed engine.

    python scripts/bench/onnx_agreement.py
    python scripts/bench/onnx_agreement.py --only mobilenetv2_e2e resnet_mx_18_ssh --size 256x192

Every network that the package has, in full width with random weights and its FocusPixel and mask
heads, is exported as `sniper export --format onnx` does, and both detect in the same generated
pictures. A box counts as found again if the other side has one within 0.02 px of it whose scores
are within 1e-4. Which proposals survive may turn on the last bit of a score, so that not all are
found again; of those that are, the largest differences are given. Masks are compared where boxes
are. An engine that refuses a network (OpenVINO has no deformable convolution) is told. Exit code 1:
of some network less than 97 % are found again, or a map differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.onnx_engines import reason_of
from bench.random_detectors import images, info
from bench.report import machine, machine_line

PX, SCORE, MAP = 0.02, 1e-4, 1e-3
LEAST_SHARE = 0.97
PICTURES = 2
RESIDUAL = 0.2  # scale of the ends of residual branches
SPREAD = 60.0  # of the pictures, which are divided by it: random networks have no statistics
HEADS = ("rpn_cls", "rpn_bbox", "cls_score", "bbox_pred", "subcls", "rfcn_")
BOX_SPREAD = 0.3  # of box deltas
# By what a network's name ends in.
RECIPES = {"_3k": "res101_mx_3k", "_ssh": "ssh_vgg16_wider"}
COMMON = "sniper_res101_e2e"


def model_of(symbol: str) -> Any:
    """The network as its recipe has it, with random weights that keep maps in size."""
    import numpy as np

    from sniper.config import load_config
    from sniper.models.heads.mask import MaskHead
    from sniper.models.networks import ends_residual, network_of
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    recipe = next((name for end, name in RECIPES.items() if symbol.endswith(end)), COMMON)
    keys = ["symbol", symbol, "gpus", "cpu", "network.PADDING", "symmetric"]
    if symbol.startswith("mobilenetv2") and recipe == COMMON:
        recipe = "sniper_mobilenetv2_e2e"
    if network_of(symbol).has(MaskHead):
        keys += ["TRAIN.WITH_MASK", "True"]
    model = random_model(test_plan(load_config(recipe, keys), devices="cpu").detector)
    rng = np.random.default_rng(0)
    for name, value in model.arg.items():
        if ends_residual(name):
            # Zeros in training from scratch; as large as these they leave maps in size.
            fan_in = value.size // len(value)
            value[:] = (
                rng.normal(0, RESIDUAL / np.sqrt(fan_in), value.shape) if fan_in > 1 else RESIDUAL
            )
        elif "offset" in name and name.endswith("_weight"):
            # Zeros at the start of training: deformable layers would be ordinary ones.
            value[:] = rng.normal(0, 1 / np.sqrt(value.size // len(value)), value.shape)
        elif name.startswith(HEADS) and name.endswith("_weight"):
            value[:] = rng.normal(size=value.shape)
    # What heads read depends on the proposals of those before them.
    for _ in range(2):
        _make_outputs_differ(model)
    return model


def _make_outputs_differ(model: Any) -> None:
    """Scales the heads' weights: classes and boxes differ, and boxes stay near their anchors."""
    import mxnet as mx

    from sniper.models.assembly import build_detector, inference_input_shapes
    from sniper.models.fit import params_of

    symbol = build_detector(model.spec, train=False)
    layers = [
        name.removesuffix("_weight")
        for name in symbol.list_arguments()
        if name.startswith(HEADS) and name.endswith("_weight")
    ]
    internals = symbol.get_internals()
    graph = mx.sym.Group([internals[f"{layer}_output"] for layer in layers])
    data = images(1, 128, 128) / SPREAD
    shapes = inference_input_shapes(model.spec, 1, 128, 128)
    used = {name: shape for name, shape in shapes.items() if name in graph.list_arguments()}
    bound = graph.simple_bind(mx.cpu(), grad_req="null", **used)
    bound.copy_params_from(*params_of(graph, used, model))
    given = {"data": data, "im_info": info(data[0])}
    outputs = bound.forward(**{name: value for name, value in given.items() if name in used})
    for layer, output in zip(layers, outputs):
        target = BOX_SPREAD if "bbox" in layer or "loc" in layer else 1.0
        spread = float(output.asnumpy().std())
        model.arg[f"{layer}_weight"][:] *= target / max(spread, 1e-12)


def sides_of(model: Any) -> dict[str, Any]:
    """Executors by engine; `mxnet` is the first."""
    import mxnet as mx

    from sniper.errors import DataError
    from sniper.inference.mxnet_executor import MxnetExecutor
    from sniper.inference.onnx_engines import installed_engines, onnx_engine
    from sniper.inference.onnx_executor import OnnxExecutor
    from sniper.models.archive import ModelArchive, WeightedGraph
    from sniper.models.fit import params_of
    from sniper.models.model import OnnxModel
    from sniper.models.onnx.archive import OnnxArchive, read_onnx_archive, write_onnx_archive
    from sniper.runs.export import as_onnx, inference_networks

    networks = [
        WeightedGraph(symbol, *params_of(symbol, shapes, model))
        for symbol, shapes in inference_networks(model.spec)
    ]
    graphs = as_onnx(model.spec, ModelArchive(networks[0], (networks[1:] or [None])[0], {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.zip"
        meta = {"outputs": [name for name, _ in graphs.detector.outputs]}
        write_onnx_archive(path, OnnxArchive(graphs.detector, graphs.mask_head, meta))
        graphs = read_onnx_archive(path)
    network = OnnxModel(model.spec, graphs.detector, graphs.mask_head, model.class_names)
    sides: dict[str, Any] = {"mxnet": MxnetExecutor(model, [mx.cpu()])}
    for engine in installed_engines():
        try:
            sides[engine] = OnnxExecutor(network, onnx_engine(engine))
        except DataError as error:
            print(f"{model.spec.symbol:<24} {engine:<12} refuses: {reason_of(error)}", flush=True)
    return sides


def compare(expected: Any, found: Any) -> dict[str, Any]:
    """Share of boxes that are found again, and the largest differences of these."""
    import numpy as np

    from sniper.models.class_scores import objectness_of

    def scores(one: Any) -> Any:
        return (
            one.scores if isinstance(one.scores, np.ndarray) else objectness_of(one.scores)[:, None]
        )

    again, px, score = 0, 0.0, 0.0
    others = scores(found)
    for box, own in zip(expected.boxes, scores(expected)):
        shifts = np.abs(found.boxes - box).max(axis=1)
        changes = np.abs(others - own).max(axis=1)
        # Several boxes may be in one place: those of a corner, cut at both borders.
        same = (shifts <= PX) & (changes <= SCORE)
        if same.any():
            again += 1
            px, score = max(px, shifts[same].min()), max(score, changes[same].min())
    maps = {
        name: float(np.abs(one - found.maps[name]).max() / max(1, np.abs(one).max()))
        for name, one in expected.maps.items()
    }
    return {
        "boxes": len(expected.boxes),
        "again": again,
        "px": float(px),
        "score": float(score),
        "map": max(maps.values(), default=0.0),
    }


def mask_difference(sides: dict[str, Any], engine: str, roi_map: Any, boxes: Any) -> float:
    """Largest difference of a probability in masks of the same map and boxes."""
    import numpy as np

    from sniper.inference.executor import MaskJob

    job = MaskJob(roi_map, boxes[:20], np.ones(len(boxes[:20]), int))
    ours, theirs = (next(iter(sides[name].masks([job]))) for name in (engine, "mxnet"))
    return float(np.abs(ours - theirs).max())


def measure(symbol: str, width: int, height: int) -> dict[str, dict[str, Any]]:
    """Of every engine what `compare` says of all pictures together."""
    import copy

    sides = sides_of(model_of(symbol))
    data = images(PICTURES, width, height) / SPREAD
    # A copy: MXNet's outputs hold until its next call.
    found = {
        name: [copy.deepcopy(side.run(image[None], info(image))[0]) for image in data]
        for name, side in sides.items()
    }
    results = {}
    for engine in list(sides)[1:]:
        parts = [compare(*pair) for pair in zip(found["mxnet"], found[engine])]
        result: dict[str, Any] = {
            key: (sum if key in ("boxes", "again") else max)(part[key] for part in parts)
            for key in parts[0]
        }
        first = found["mxnet"][0]
        if sides["mxnet"].traits.has_masks and len(first.boxes):
            roi_map = first.maps["roi"]
            result["mask"] = mask_difference(sides, engine, roi_map, first.boxes)
        results[engine] = result
    return results


def main(argv: Optional[list[str]] = None) -> int:
    import sniper  # noqa: F401  (prepares the process for MXNet)
    from sniper.models.networks import network_names

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(network_names()), metavar="NETWORK")
    parser.add_argument("--but", nargs="+", default=[], metavar="NETWORK", help="leave these out")
    parser.add_argument("--size", default="256x192", metavar="WIDTHxHEIGHT", help="of the pictures")
    parser.add_argument("--json", type=Path, help="writes all figures to this file")
    args = parser.parse_args(argv)
    width, height = (int(side) for side in args.size.split("x"))
    about = machine()
    print(machine_line(about))
    results, same = {}, True
    for symbol in sorted(set(args.only or network_names()) - set(args.but)):
        results[symbol] = measure(symbol, width, height)
        for engine, one in results[symbol].items():
            share = one["again"] / max(1, one["boxes"])
            right = share >= LEAST_SHARE and one["map"] <= MAP and one.get("mask", 0) <= MAP
            same &= right
            mask = f", masks {one['mask']:.1e}" if "mask" in one else ""
            print(
                f"{symbol:<24} {engine:<12} {one['again']:>4} of {one['boxes']:>4} boxes, "
                f"{one['px']:.4f} px, scores {one['score']:.1e}, maps {one['map']:.1e}{mask}"
                f"{'' if right else ': TOO FEW OR TOO FAR'}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

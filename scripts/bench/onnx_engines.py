"""What computes a detector fastest on this CPU: MXNet, ONNX Runtime or OpenVINO, fp32 and INT8.

    python scripts/bench/onnx_engines.py
    python scripts/bench/onnx_engines.py --only mobilenetv2_e2e --size 800x608 --rounds 9

Whole detectors (network, proposals, heads, decoding) with the same random weights see the same
images, in turn in one process with the same threads (`OMP_NUM_THREADS`). First their RoI maps are
compared with those of MXNet in fp32: the relative L2 difference has to be below 0.01 % in fp32 and
20 % in INT8. The INT8 graph of ONNX Runtime runs in OpenVINO, too. Figures are medians over the
rounds, and time of MXNet fp32 / time of the side. Engines that are not installed are left out, and
told. Exit code 1: the maps differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.int8 import BRANCH_SCALE, BRANCHES, CALIBRATION_IMAGES, RECIPES, images, info
from bench.report import load_warning, machine, machine_line

REFERENCE = "MXNet fp32"
LARGEST_DIFFERENCE = {"fp32": 1e-4, "INT8": 0.2}  # of random weights


def executors(recipe: str, data: Any) -> dict[str, Any]:
    """The sides by name, `<engine> <precision>`."""
    from dataclasses import replace

    import mxnet as mx
    import numpy as np

    from sniper.config import load_config
    from sniper.errors import DataError
    from sniper.inference.mxnet_executor import MxnetExecutor
    from sniper.inference.onnx_engines import installed_engines, onnx_engine
    from sniper.inference.onnx_executor import OnnxExecutor
    from sniper.models.archive import ModelArchive, WeightedGraph
    from sniper.models.assembly import build_detector
    from sniper.models.model import OnnxModel
    from sniper.models.quantize import quantize_network
    from sniper.runs.export import as_onnx
    from sniper.runs.int8 import QuantizeSettings, quantized_program
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    model = random_model(test_plan(load_config(recipe), devices="cpu").detector)
    for name, value in model.arg.items():
        if name.endswith(BRANCHES):
            value[:] = BRANCH_SCALE
    symbol = build_detector(model.spec, train=False, roi_map=True)
    needed = set(symbol.list_arguments())
    arg = {name: value for name, value in model.arg.items() if name in needed}
    ids = np.zeros(1, np.float32)
    inputs = [
        {"data": image[None], "im_info": info(image), "im_ids": ids, "chip_ids": ids}
        for image in data
    ]
    graph = WeightedGraph(symbol, arg, model.aux)
    int8 = quantize_network(graph, inputs)
    models = {
        "fp32": replace(model, symbol=symbol),
        "INT8": replace(model, arg=int8.arg, aux=int8.aux, symbol=int8.symbol),
    }
    sides: dict[str, Any] = {
        f"MXNet {name}": MxnetExecutor(one, [mx.cpu()]) for name, one in models.items()
    }
    program = as_onnx(model.spec, ModelArchive(graph, None, {})).detector
    quantised = quantized_program(program, lambda: iter(inputs), QuantizeSettings(len(inputs)))
    for engine in installed_engines():
        for name, one in (("fp32", program), ("INT8", quantised)):
            network = OnnxModel(model.spec, one, None, model.class_names)
            try:
                sides[f"{engine} {name}"] = OnnxExecutor(network, onnx_engine(engine))
            except DataError as error:
                print(f"left out: {engine} {name}: {reason_of(error)}")
    return sides


def reason_of(error: Exception) -> str:
    """Why an engine refuses a network, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[len("got: ") :] for line in lines if line.startswith("got: ")), lines[0])


def measure(recipe: str, width: int, height: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Of every side the difference of its maps, and the seconds of every round."""
    import numpy as np

    data = images(CALIBRATION_IMAGES, width, height)
    sides = executors(recipe, data)
    # A copy: MXNet's outputs hold until its next call.
    maps = {
        name: np.array(side.run(data[:1], info(data[0]))[0].maps["roi"])
        for name, side in sides.items()
    }
    reference = maps[REFERENCE]
    results: dict[str, dict[str, Any]] = {
        name: {
            "difference": float(np.linalg.norm(one - reference) / np.linalg.norm(reference)),
            "seconds": [],
        }
        for name, one in maps.items()
    }
    for number in range(rounds):
        for name, side in sides.items():
            image = data[number % len(data)]
            began = time.perf_counter()
            side.run(image[None], info(image))
            results[name]["seconds"].append(time.perf_counter() - began)
    before = results[REFERENCE]["seconds"]
    for result in results.values():
        ratios = [one / other for one, other in zip(before, result["seconds"])]
        result["ratio"] = statistics.median(ratios)
        result["ratio_range"] = [min(ratios), max(ratios)]
    return results


def line(name: str, result: dict[str, Any]) -> str:
    """What a person reads."""
    low, high = result["ratio_range"]
    return (
        f"  {name:<18} {1000 * statistics.median(result['seconds']):7.1f} ms  "
        f"{result['ratio']:.2f} ({low:.2f}-{high:.2f}) times the speed of {REFERENCE}; "
        f"maps differ by {result['difference']:.2e}"
    )


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(RECIPES), help="one network")
    parser.add_argument("--size", default="800x608", metavar="WIDTHxHEIGHT", help="of the images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="writes every round to this file")
    args = parser.parse_args(argv)
    width, height = (int(side) for side in args.size.split("x"))
    import sniper  # noqa: F401  (sets the threads before MXNet is imported)
    from sniper.inference.onnx_engines import ENGINES
    from sniper.process import is_installed

    about = machine()
    print(machine_line(about), f"OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}")
    if load_warning(about):
        print(load_warning(about))
    for engine in ENGINES:
        if not is_installed(engine):
            print(f"left out, since it is not installed: {engine}")
    results, same = {}, True
    for name in [args.only] if args.only else RECIPES:
        results[name] = measure(RECIPES[name], width, height, args.rounds)
        print(f"{name}, {args.size}")
        for side, result in results[name].items():
            right = result["difference"] <= LARGEST_DIFFERENCE[side.split()[1]]
            print(line(side, result), "" if right else ": TOO MUCH", flush=True)
            same &= right
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

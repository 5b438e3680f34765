"""Where the time of a detector, or of a training step, goes: MXNet's profiler, by operator.

    python scripts/bench/profile_operators.py --cfg sniper_res50_e2e --size 800x608
    python scripts/bench/profile_operators.py --cfg sniper_mobilenetv2_toy --train

Random weights, and a batch of noise with one object in each chip; threads as OMP_NUM_THREADS says.
Prints a Markdown table: calls and milliseconds of a pass, and the share of the sum. Times are those
inside the operators, one after another; between them, in Python and in the queues of MXNet, lies
what the whole pass takes longer. To compare with another checkout, put its lib into PYTHONPATH and
run this same script.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.report import load_warning, machine, machine_line

# Operators that run in one piece have no times of their own. MXNet reads these once.
BULKS = ("MXNET_EXEC_BULK_EXEC_INFERENCE", "MXNET_EXEC_BULK_EXEC_TRAIN")
WARM_PASSES = 2
PIXEL_SCALE = 50.0


def detection(cfg: Any, width: int, height: int) -> Callable[[], Any]:
    """Detects in one window; network, proposals, heads and decoding."""
    import mxnet as mx
    import numpy as np

    from bench.random_detectors import images, info
    from sniper.inference.mxnet_executor import MxnetExecutor
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    executor = MxnetExecutor(random_model(test_plan(cfg, devices="cpu").detector), [mx.cpu()])
    data = images(1, width, height)
    shown = np.asarray(info(data[0]))
    return lambda: executor.run(data, shown)


def training(cfg: Any) -> Callable[[], Any]:
    """One update: forward, backward, optimizer; no loader."""
    from dataclasses import replace

    import mxnet as mx
    import numpy as np

    from sniper.loader.train import Batch
    from sniper.models.assembly import build_detector, train_input_shapes
    from sniper.models.weights import fixed_names, initialise
    from sniper.runs.plan import train_plan
    from sniper.training.stepper import Stepper

    plan = train_plan(cfg)
    spec, side = plan.detector, plan.chips.chip_size
    symbol = build_detector(spec, train=True, rpn_only=plan.rpn_only)
    shapes = train_input_shapes(spec, side, rpn_only=plan.rpn_only)
    arg, aux, _ = initialise(symbol, shapes, None, 0, init="scratch", heads=spec.network.heads)
    settings = replace(plan.step, fixed=tuple(fixed_names(symbol, plan.weights.fixed)))
    devices = [device.context() for device in plan.devices]
    stepper = Stepper(spec, symbol, devices, shapes, arg, aux, settings)
    generator = np.random.default_rng(0)
    arrays = {
        name: chip_input(name, (shape[0] * len(devices), *shape[1:]), side, generator)
        for name, shape in shapes.items()
    }

    def step() -> None:
        stepper.step(Batch(arrays, {}, 0, [], []))
        mx.nd.waitall()

    return step


def chip_input(name: str, shape: tuple[int, ...], side: int, generator: Any) -> Any:
    """An input of training: noise, with an object in the middle of each chip."""
    import numpy as np

    if name == "data":
        return generator.normal(0, PIXEL_SCALE, shape).astype(np.float32)
    array = np.full(shape, -1 if name.startswith("gt_") else 0, np.float32)
    if name == "gt_boxes":
        array[:, 0] = [side / 4, side / 4, 3 * side / 4, 3 * side / 4, 1]
    elif name == "im_info":
        array[:] = [side, side, 1]
    elif name == "valid_ranges":
        array[:] = [0, 1e5]
    return array


def profiled(run: Callable[[], Any], passes: int) -> tuple[float, dict[str, tuple[float, float]]]:
    """Milliseconds of a pass without the profiler, and calls and milliseconds by operator."""
    import json

    import mxnet as mx

    for _ in range(WARM_PASSES):
        run()
    times = []
    for _ in range(passes):
        began = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - began))
    # When the process ends MXNet writes a file of its own, in place of what has that name.
    unwanted = str(Path(tempfile.mkdtemp()) / "profile.json")
    atexit.register(shutil.rmtree, Path(unwanted).parent, ignore_errors=True)
    mx.profiler.set_config(
        profile_symbolic=True, profile_imperative=True, aggregate_stats=True, filename=unwanted
    )
    mx.profiler.set_state("run")
    for _ in range(passes):
        run()
    mx.profiler.set_state("stop")
    found = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"].get("operator", {})
    rows = {
        name: (row["Count"] / passes, row["Total"] / passes)
        for name, row in found.items()
        if not name.startswith(("WaitForVar", "DeleteVariable"))
    }
    return statistics.median(times), rows


def table(rows: dict[str, tuple[float, float]], most: int) -> list[str]:
    """Markdown, the largest first; the rest in one row."""
    total = sum(time_ms for _, time_ms in rows.values())
    ordered = sorted(rows.items(), key=lambda row: -row[1][1])
    shown = [*ordered[:most]]
    if ordered[most:]:
        rest = [row for _, row in ordered[most:]]
        shown.append((f"{len(rest)} others", (sum(r[0] for r in rest), sum(r[1] for r in rest))))
    lines = ["| operator | calls | ms | share |", "|---|---|---|---|"]
    for name, (calls, time_ms) in [*shown, ("sum", (sum(r[0] for r in rows.values()), total))]:
        lines.append(f"| {name} | {calls:.0f} | {time_ms:.1f} | {time_ms / total:.1%} |")
    return lines


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", default="sniper_res50_e2e", help="recipe")
    parser.add_argument("--train", action="store_true", help="a training step, not a detection")
    parser.add_argument("--size", default="800x608", help="of the image that is detected in")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    for name in BULKS:
        os.environ[name] = "0"
    import sniper  # noqa: F401 (prepares the process for MXNet)
    from sniper.config import load_config

    facts = machine()
    print(machine_line(facts))
    if load_warning(facts):
        print(load_warning(facts))
    cfg = load_config(args.cfg, ["gpus", "cpu", *args.set])
    width, height = (int(side) for side in args.size.split("x"))
    run = training(cfg) if args.train else detection(cfg, width, height)
    pass_ms, rows = profiled(run, args.passes)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    what = "training step" if args.train else f"detection, {args.size}"
    print(f"{args.cfg}: {what}, {threads} threads: {pass_ms:.1f} ms without the profiler")
    print("\n".join(table(rows, args.rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

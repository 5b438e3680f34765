"""What classes cost: R-FCN-3K beside plain heads, as the number of classes grows.

    python scripts/bench/fine_head.py                           # 120 and 1000 classes, toy recipe
    python scripts/bench/fine_head.py --classes 120 1000 3130 --json growth.json
    python scripts/bench/fine_head.py --recipe res101_mx_3k --arms 3k --classes 3130 --batch 1 \
        --test-batch 6                                          # the network of 2018

Arms, on one backbone with the same layers in front of the classes:

* 3k: R-FCN-3K: objectness by position-sensitive maps, and a fine head with one filter per class;
* rfcn: R-FCN: position-sensitive maps, 49 filters, for each class;
* e2e: deformable RoI pooling and two dense layers, a row of the last one for each class.

Training: forward, backward and SGD of a batch of chips with random boxes of random classes. Test:
forward of a batch. Every measurement is a process of its own: times are medians, memory is how far
the process's largest resident size lies above that before the graph was bound, without the weights
(and, in training, without their gradients and momenta), which have a column of their own. Measure
on an idle machine; threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ARMS = ("3k", "rfcn", "e2e")
MB = 1e6
OBJECTS = 6  # of a chip
COPIES_IN_TRAINING = 3  # weight, gradient, momentum

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all arms and numbers of classes in turn and prints the table."""
    args = parse(argv)
    if args.job:
        print(json.dumps(measure(json.loads(args.job))))
        return 0
    rows: list[Row] = []
    for classes in args.classes:
        for arm in args.arms:
            for part in ("train", "test"):
                rows.append(in_a_process(args, arm, classes, part))
                print(line(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="mobilenetv2_3k_toy", help="(default: %(default)s)")
    parser.add_argument("--classes", nargs="+", type=int, default=[120, 1000])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--batch", type=int, default=0, help="chips; 0: the recipe's")
    parser.add_argument("--test-batch", type=int, default=1, help="images (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def in_a_process(args: argparse.Namespace, arm: str, classes: int, part: str) -> Row:
    """One measurement."""
    job = {
        **{"arm": arm, "classes": classes, "part": part, "recipe": args.recipe},
        **{"steps": args.steps, "batch": args.batch if part == "train" else args.test_batch},
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(job)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(job: Mapping[str, Any]) -> Row:
    """Time and memory of an arm, in this process."""
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    from sniper.models.initialisers import initialise

    is_training = job["part"] == "train"
    spec, symbol, inputs = network(job)
    shapes = {name: value.shape for name, value in inputs.items()}
    arg, aux, _ = initialise(symbol, shapes, None, 0, init="scratch", heads=spec.network.heads)
    mx.nd.waitall()
    before = largest_mb()
    # Inputs get no gradient.
    requests = {name: "null" if name in inputs else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), grad_req=requests if is_training else "null", **shapes)
    executor.copy_params_from(arg, aux)
    for name, value in inputs.items():
        executor.arg_dict[name][:] = value
    step = training_step(symbol, executor, list(arg)) if is_training else executor.forward
    timed(step)
    times = sorted(timed(step) for _ in range(job["steps"]))
    if not all(np.isfinite(output.asnumpy()).all() for output in executor.outputs):
        raise SystemExit("the network gives numbers that are not finite")
    weights_mb = sum(value.size for value in arg.values()) * 4 / MB
    copies = COPIES_IN_TRAINING if is_training else 1
    return {
        **job,
        "batch": len(inputs["data"]),
        "symbol": spec.symbol,
        "px": inputs["data"].shape[-1],
        "ms": statistics.median(times) * 1e3,
        "fastest_ms": times[0] * 1e3,
        "slowest_ms": times[-1] * 1e3,
        "weights_mb": weights_mb,
        "memory_mb": largest_mb() - before - copies * weights_mb,
    }


def network(job: Mapping[str, Any]) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Description, symbol and inputs of an arm."""
    from sniper.config import load_config
    from sniper.models.assembly import (
        build_detector,
        inference_input_shapes,
        train_input_shapes,
    )
    from sniper.runs.resolve import detector_spec

    backbone = str(load_config(job["recipe"]).symbol).rpartition("_")[0]
    overrides = ["symbol", f"{backbone}_{job['arm']}", "gpus", "cpu", "dataset.NUM_CLASSES"]
    cfg = load_config(job["recipe"], [*overrides, str(job["classes"] + 1)])
    chip, batch = cfg.TRAIN.CHIP_SIZE, job["batch"] or cfg.TRAIN.BATCH_IMAGES
    is_training = job["part"] == "train"
    spec = detector_spec(cfg, train=is_training, batch_images=batch, fp16=False)
    symbol = build_detector(spec, train=is_training)
    if is_training:
        shapes = train_input_shapes(spec, chip)
        return spec, symbol, training_inputs(shapes, chip, job["classes"])
    shapes = inference_input_shapes(spec, batch, chip, chip)
    inputs = {name: np.zeros(shape) for name, shape in shapes.items()}
    inputs["data"] = np.random.default_rng(0).normal(0, 50, shapes["data"])
    inputs["im_info"][:] = chip, chip, 1
    return spec, symbol, inputs


def training_step(symbol: Any, executor: Any, names: Sequence[str]) -> Callable[[], None]:
    """Forward, backward and the update of these parameters."""
    from sniper.training.sgd import Sgd
    from sniper.training.step_settings import StepSettings

    weights = {name: executor.arg_dict[name] for name in names}
    optimizer = Sgd(symbol, weights, StepSettings(lr=1e-4, momentum=0.9, wd=1e-4))

    def step() -> None:
        executor.forward(is_train=True)
        executor.backward()
        optimizer.update({name: executor.grad_dict[name] for name in names})

    return step


def timed(step: Callable[[], object]) -> float:
    """Seconds until all that a step has begun is done."""
    import mxnet as mx

    started = time.perf_counter()
    step()
    mx.nd.waitall()
    return time.perf_counter() - started


def training_inputs(
    shapes: Mapping[str, tuple[int, ...]], chip: int, classes: int
) -> dict[str, np.ndarray]:
    """A batch with boxes of random classes and random labels of anchors."""
    rng = np.random.default_rng(0)
    images = shapes["data"][0]
    labels = np.full(shapes["label"], -1)
    for row in labels:
        chosen = rng.choice(row.size, min(256, row.size), replace=False)
        row[chosen] = np.arange(len(chosen)) % 2
    boxes = np.full(shapes["gt_boxes"], -1.0)
    corner = rng.uniform(0, 0.6 * chip, (images, OBJECTS, 2))
    side = rng.uniform(0.15, 0.4, (images, OBJECTS, 2)) * chip
    boxes[:, :OBJECTS, :2], boxes[:, :OBJECTS, 2:4] = corner, corner + side
    boxes[:, :OBJECTS, 4] = rng.integers(1, classes + 1, (images, OBJECTS))
    return {
        "data": rng.normal(0, 50, shapes["data"]),
        "im_info": np.tile([chip, chip, 1.0], (images, 1)),
        "valid_ranges": np.tile([0.0, float(chip)], (images, 1)),
        "label": labels,
        "bbox_target": np.zeros(shapes["bbox_target"]),
        "bbox_weight": np.zeros(shapes["bbox_weight"]),
        "gt_boxes": boxes,
    }


def largest_mb() -> float:
    """The largest size that this process had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def line(row: Row) -> str:
    return (
        f"{row['symbol']} {row['classes']} classes, {row['part']} of {row['batch']}: "
        f"{row['ms']:.0f} ms ({row['fastest_ms']:.0f}-{row['slowest_ms']:.0f}), weights "
        f"{row['weights_mb']:.0f} MB, {row['memory_mb']:.0f} MB beside them"
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown; growth is against the first number of classes."""
    first = {(row["arm"], row["part"]): row for row in reversed(rows)}
    lines = [
        "| part | arm | classes | ms | growth | weights MB | growth | other memory MB | growth |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["part"] != "train", row["arm"], row["classes"])):
        base = first[row["arm"], row["part"]]
        cells = [f"{row['part']}, batch {row['batch']}", row["arm"], str(row["classes"])]
        for key in ("ms", "weights_mb", "memory_mb"):
            cells += [f"{row[key]:.0f}", f"{row[key] - base[key]:+.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""`sniper plan-memory`: the memory that training and testing will need, before anything runs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_json_flag,
    add_mode_flag,
    as_bytes,
    as_image_size,
    as_positive,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main

if TYPE_CHECKING:
    from sniper.runs.measured_memory import MeasuredPeak
    from sniper.runs.memory_plan import MemoryPlan

_DESCRIPTION = """\
Says how much memory a device needs to train a recipe and to detect with it: weights, gradients,
optimizer, the layers' outputs that live at one time, workspace. It is told from the network's graph
with all shapes: nothing is run, and GPUs that the recipe asks for need not be there.
"""
_EPILOG = """\
examples:
  sniper plan-memory --cfg sniper_res101_e2e --batch 20 --device-memory 32GB
  sniper plan-memory --cfg my.yml --image-size 1920x1080 --set gpus cpu
  sniper plan-memory --cfg sniper_mobilenetv2_toy --image-size 320x240 --measure --set gpus cpu

GB are 1000 MB of 1000000 bytes. docs/plan_memory.md says how exact this is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the plan is made, 1 when a measurement failed, 2 for a bad setting.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper plan-memory", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--batch",
        type=as_positive,
        metavar="N",
        help="chips of a device in training, images in testing (default: TRAIN.BATCH_IMAGES and "
        "TEST.BATCH_IMAGES)",
    )
    parser.add_argument(
        "--chip-size",
        type=as_positive,
        metavar="PX",
        help="side of a chip (default: TRAIN.CHIP_SIZE)",
    )
    parser.add_argument(
        "--image-size",
        type=as_image_size,
        default=(640, 480),
        metavar="WIDTHxHEIGHT",
        help="of the images in testing (default: 640x480)",
    )
    parser.add_argument(
        "--device-memory",
        type=as_bytes,
        metavar="SIZE",
        help="also say the largest batch that fits, e.g. 32GB",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also run some updates, and a detection, on the CPU, and show what they took",
    )
    add_mode_flag(parser, ("single", "pyramid", "focus", "slice"))
    add_json_flag(parser)
    add_cfg_and_set(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.process import start_logging
    from sniper.runs.memory_plan import largest_batch, testing_memory, training_memory

    start_logging(level=logging.WARNING)
    pairs = [
        *(["TRAIN.CHIP_SIZE", str(args.chip_size)] if args.chip_size else []),
        *(["TRAIN.BATCH_IMAGES", str(args.batch)] if args.batch else []),
        *(["TEST.MODE", args.mode] if args.mode else []),
    ]
    cfg = load_config(args.cfg, [*args.overrides, *pairs])
    if args.measure:
        _check_measurable(cfg.gpus)

    def train_plan(batch: int) -> MemoryPlan:
        return training_memory(cfg, batch_images=batch)

    def test_plan(batch: int) -> MemoryPlan:
        return testing_memory(cfg, args.image_size, batch_images=batch)

    plans = [
        training_memory(cfg),
        testing_memory(cfg, args.image_size, batch_images=args.batch),
    ]
    on_gpu = plans[0].on_gpu
    fitting: dict[str, Any] = {}
    if args.device_memory:
        fitting["training"] = largest_batch(train_plan, args.device_memory)
        if on_gpu:  # a CPU sees windows one by one
            fitting["testing"] = largest_batch(test_plan, args.device_memory)
        else:
            fitting["testing"] = int(plans[1].fits(args.device_memory))
    measured = _measure(cfg, args.image_size) if args.measure else []
    if str(args.json) != "-":
        precision = "fp16" if on_gpu and cfg.TRAIN.fp16 else "fp32"
        print(f"{cfg.name} on {'a GPU' if on_gpu else 'the CPU'}, {precision}")
        print("\n".join(table(plans, measured)))
        if fitting:
            print("\n".join(_fitting_lines(fitting, args.device_memory, on_gpu=on_gpu)))
    if args.json is not None:
        write_json(args.json, _as_dict(cfg.name, plans, measured, fitting, args.device_memory))
    return 0


def _check_measurable(gpus: Any) -> None:
    if str(gpus).strip() not in ("", "cpu"):
        raise ConfigError(
            "peaks are measured on one CPU device",
            where="--measure",
            got=f"gpus '{gpus}'",
            fix="--set gpus cpu",
        )


def _measure(cfg: Any, image_size: tuple[int, int]) -> list[MeasuredPeak]:
    from sniper.runs.measured_memory import measure_testing, measure_training

    return [measure_training(cfg), measure_testing(cfg, image_size)]


def table(plans: Sequence[MemoryPlan], measured: Sequence[MeasuredPeak] = ()) -> list[str]:
    """Training and testing side by side, in MB, and what both columns are.

    Args:
        plans: of training and of testing.
        measured: what a run of each took; empty where none was made.
    """
    names = list(dict.fromkeys(name for plan in plans for name in plan.items))
    rows: list[tuple[str, list[float | None]]] = [
        (name, [plan.items.get(name) for plan in plans]) for name in names
    ]
    rows.append(("total", [plan.total for plan in plans]))
    if measured:
        rows.append(("measured", [peak.above_process for peak in measured]))
    lines = [f"{'MB':<18}{'training':>10}{'testing':>10}"]
    for name, values in rows:
        cells = "".join(f"{'-' if v is None else f'{v / 1e6:.0f}':>10}" for v in values)
        lines.append(f"{name:<18}{cells}")
    if measured:
        ratios = [f"{plan.total / m.above_process:.2f}" for plan, m in zip(plans, measured)]
        lines.append(f"{'plan / measured':<18}" + "".join(f"{ratio:>10}" for ratio in ratios))
    beside = [f"{peak.process / 1e6:.0f}" for peak in measured]
    if not beside:
        beside = [f"{plan.around / 1e6:.0f}" for plan in plans]
    how = "measured" if measured else "assumed"
    what = "CUDA's own" if plans[0].on_gpu else "the process"
    lines.append(f"{what + ', ' + how:<18}" + "".join(f"{value:>10}" for value in beside))
    for plan in plans:
        held = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in plan.largest[:3])
        lines.append(
            f"{plan.what}\n  {plan.at_once / 1e6:.0f} MB of the activations live at once, at "
            f"{plan.peak_layer}; most of it: {held}"
        )
    return lines


def _fitting_lines(fitting: dict[str, int], memory: float, *, on_gpu: bool) -> list[str]:
    size = f"{memory / 1e9:g} GB"
    chips = fitting["training"]
    lines = [
        f"largest training batch in {size}: {chips} chip(s)"
        if chips
        else f"not even one chip can be trained in {size}"
    ]
    images = fitting["testing"]
    if not images:
        return [*lines, f"not even one image can be tested in {size}"]
    if on_gpu:
        return [*lines, f"largest testing batch in {size}: {images} image(s)"]
    return [*lines, f"testing fits into {size}; a CPU sees images one by one"]


def _as_dict(
    name: str,
    plans: Sequence[MemoryPlan],
    measured: Sequence[MeasuredPeak],
    fitting: dict[str, int],
    memory: float | None,
) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for number, (part, plan) in enumerate(zip(("training", "testing"), plans)):
        parts[part] = {
            "what": plan.what,
            "bytes": plan.items,
            "total_bytes": plan.total,
            "beside_bytes": plan.around,
            "live_at_once_bytes": plan.at_once,
            "peak_layer": plan.peak_layer,
            "largest_layers": dict(plan.largest),
        }
        if measured:
            peak = measured[number]
            parts[part]["measured"] = {
                "process_bytes": peak.process,
                "peak_bytes": peak.peak,
                "plan_over_measured": plan.total / peak.above_process,
            }
        if fitting:
            parts[part]["largest_batch"] = fitting[part]
    device = {} if memory is None else {"device_memory_bytes": memory}
    return {"recipe": name, "on_gpu": plans[0].on_gpu, **device, **parts}

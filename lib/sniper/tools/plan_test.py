"""`sniper plan-test`: the way to test that is worth its time, for a budget."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sniper.config import check_is_no_base, dump_values, load_config, overridden, plain
from sniper.config.yaml_files import base_name
from sniper.files import atomic_write_text
from sniper.tools.arguments import (
    add_config_flags,
    add_images_flag,
    add_json_flag,
    add_out_flag,
    add_plot_flag,
    add_weights_flag,
    as_count,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main

if TYPE_CHECKING:
    from sniper.runs.plan_tests import PlannedTest, Trial, Wish

_DESCRIPTION = """\
Tries ways to test a trained network (single scales, pyramids, AutoFocus, slices) on one half of the
test set, shows which are worth their time, chooses one for a budget, confirms it on the other half,
and writes it as a yml file that extends the recipe.
"""
_EPILOG = """\
examples:
  sniper plan-test --cfg sniper_res18_toy --budget 200ms --out fast.yml
  sniper plan-test --cfg my.yml --ap-loss 1 --modes single pyramid --plot front.png
  sniper test --cfg fast.yml

What is done stays on disk: a plan that was stopped goes on, and another budget costs seconds.
docs/plan_test.md says what is measured how.
"""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")
_MODES = ("single", "pyramid", "focus", "slice")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when a setting is chosen, 2 for a bad setting or a budget that nothing meets, 3 for
        missing or unfit weights or data.
    """
    return run_main(_run, argv)


def as_duration(text: str) -> float:
    """Seconds of a flag's `200ms` or `1.5s`."""
    match = _DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 200ms or 1.5s, got {text!r}")
    return float(match[1]) * (1e-3 if match[2] == "ms" else 1.0)


def as_points(text: str) -> float:
    """Points of AP, 0 to 100."""
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"expected points of AP from 0 to 100, got {text!r}")
    return points


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper plan-test", _DESCRIPTION, _EPILOG)
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument(
        "--budget",
        type=as_duration,
        metavar="TIME",
        help="choose the most accurate setting that takes at most so long an image: 200ms, 1.5s",
    )
    wish.add_argument(
        "--ap-loss",
        type=as_points,
        default=None,
        metavar="POINTS",
        help="choose the fastest setting that loses at most so many points against the most "
        "accurate one (default: 1)",
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="what is counted: time that passes, or time of all threads, which other jobs on the "
        "machine disturb less (default: %(default)s)",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=_MODES,
        default=list(_MODES),
        help="modes to try (default: all that the network can do)",
    )
    parser.add_argument(
        "--seed",
        type=as_count,
        default=0,
        metavar="N",
        help="of the halves of the set (default: %(default)s)",
    )
    add_images_flag(parser, default=0)
    add_out_flag(parser, "FILE.yml", "write the chosen setting as a yml that extends the recipe")
    add_plot_flag(parser)
    add_json_flag(parser)
    add_weights_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.process import start_logging, warnings_only
    from sniper.runs.plan_tests import Wish, plan_the_test

    start_logging(level=logging.INFO)
    loss = 1.0 if args.budget is None and args.ap_loss is None else args.ap_loss
    wish = Wish(args.budget, None if loss is None else loss / 100, args.clock)
    cfg = load_config(args.cfg, args.overrides)
    if args.out is not None:
        check_is_no_base(args.out, args.cfg)
    if "focus" in args.modes and not cfg.TEST.AUTO_FOCUS and args.modes != ["focus"]:
        logging.getLogger(__name__).info(
            "mode focus is not tried: the network was not trained to find FocusPixels"
        )
    # Every setting is another configuration and another evaluation: they would say all of it again.
    with warnings_only("sniper.evaluation", "sniper.config"):
        planned = plan_the_test(
            cfg,
            lambda pairs: load_config(args.cfg, [*args.overrides, *pairs]),
            wish,
            args.modes,
            weights=args.weights,
            save_prefix=args.save_prefix,
            images=args.images,
            seed=args.seed,
        )
    if str(args.json) != "-":
        print("\n".join(report_lines(planned, wish)))
    if args.out is not None:
        given = overridden(cfg, args.overrides)
        text = yml_text(planned, wish, cfg.name, args.cfg, given, args.out.parent, args.seed)
        atomic_write_text(args.out, text)
        logging.getLogger(__name__).info("written: %s", args.out)
    if args.json is not None:
        write_json(args.json, as_dict(planned, wish, args.seed))
    if args.plot is not None:
        _plot(planned, wish, cfg.name, args.plot)
    return 0


def report_lines(planned: PlannedTest, wish: Wish) -> list[str]:
    """What was measured on the first half, what was chosen, and whether it holds on the second."""
    lines = [
        f"{planned.set_name}: {planned.images[0]} images choose, {planned.images[1]} confirm; "
        f"{machine()}",
        "",
        *_table(planned.trials, planned.number, planned.front, planned.chosen),
        "* on the front: no other setting is as accurate in less time. +-: one standard error over "
        "images.",
        "",
        *_recalls(planned),
        "",
        f"chosen for {_wish_in_words(wish)}: {planned.chosen}",
        *_confirmation(planned, wish),
    ]
    return lines


def machine() -> str:
    """Threads and instruction set of the times."""
    from sniper.native import _native

    return f"OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}, {_native.isa()}"


def _wish_in_words(wish: Wish) -> str:
    clock = "" if wish.clock == "wall" else " of CPU time"
    if wish.budget_s is not None:
        return f"{1000 * wish.budget_s:g} ms{clock} an image"
    return f"a loss of at most {100 * (wish.loss or 0):g} points, by {wish.clock} time"


def _table(
    trials: Sequence[Trial], number: str, front: Sequence[str] = (), chosen: str = ""
) -> list[str]:
    width = max(len(trial.setting.name) for trial in trials)
    head = f"  {'':<{width}} {'ms':>8} {'CPU ms':>8} {'Mpx':>7} {'MB':>6} {number:>7} {'+-':>5}"
    lines = [head]
    for trial in sorted(trials, key=lambda trial: trial.point.cost):
        name = trial.setting.name
        mark = "*" if name in front else " "
        lines.append(
            f"{mark} {name:<{width}} {1000 * trial.wall_s:8.1f} {1000 * trial.cpu_s:8.1f} "
            f"{trial.pixels / 1e6:7.3f} {trial.memory_bytes / 1e6:6.0f} "
            f"{100 * trial.point.accuracy:7.2f} {100 * trial.point.spread:5.2f}"
            + ("  <- chosen" if name == chosen else "")
        )
    return lines


def _recalls(planned: PlannedTest) -> list[str]:
    shown = [trial for trial in planned.trials if trial.setting.name in planned.front]
    if planned.chosen not in planned.front:
        shown.append(planned.trial(planned.chosen))
    width = max(len(trial.setting.name) for trial in shown)
    sizes = shown[0].recall.names()
    lines = [
        f"recall (%) by sqrt(area) of objects in image px, IoU 0.5, {planned.images[0]} images"
    ]
    lines.append(f"  {'':<{width}} " + " ".join(f"{size:>7}" for size in sizes))
    lines.append(
        f"  {'objects':<{width}} " + " ".join(f"{n:>7}" for n in shown[0].recall.objects.tolist())
    )
    for trial in sorted(shown, key=lambda trial: trial.point.cost):
        cells = [
            f"{'-':>7}" if math.isnan(value) else f"{100 * value:>7.1f}"
            for value in trial.recall.recall.tolist()
        ]
        lines.append(f"  {trial.setting.name:<{width}} " + " ".join(cells))
    return lines


def _confirmation(planned: PlannedTest, wish: Wish) -> list[str]:
    found = planned.confirmation
    again = next(t for t in planned.confirmed if t.setting.name == planned.chosen)
    lines = [
        f"on the other {planned.images[1]} images: {planned.number} "
        f"{100 * again.point.accuracy:.2f} +- {100 * again.point.spread:.2f}, "
        f"{1000 * again.wall_s:.1f} ms, {1000 * again.cpu_s:.1f} ms of CPU time"
    ]
    if found.rival is None:
        lines.append("  no setting that was cheaper to begin with is cheaper there")
    else:
        kind = "more" if found.lead > 0 else "less"
        lines.append(
            f"  the best that costs no more, {found.rival}, has {100 * abs(found.lead):.2f} points "
            f"{kind} (one standard error {100 * found.spread:.2f}): "
            + (
                "the choice is on the front there as well"
                if found.is_on_front
                else "that is within chance (two standard errors)"
                if found.is_within_chance
                else "the choice does not hold there; more images would help"
            )
        )
    if wish.budget_s is not None and again.point.cost > wish.budget_s:
        lines.append(
            f"  it takes {1000 * again.point.cost:.1f} ms there, more than the budget: the halves "
            "differ, leave some room"
        )
    return lines


def yml_text(
    planned: PlannedTest,
    wish: Wish,
    name: str,
    cfg_name: str,
    given: Mapping[str, Any],
    folder: Path,
    seed: int,
) -> str:
    """The chosen setting as a yml file that extends the recipe.

    Args:
        planned: what was found.
        wish: what it was chosen for.
        name: of the recipe, whose weights are tested.
        cfg_name: the recipe, a file or its name.
        given: the values of `--set`, which were in force and stay so.
        folder: of the new file.
        seed: of the halves.
    """
    trial = planned.trial(planned.chosen)
    lines = [
        f"# Chosen by `sniper plan-test --cfg {cfg_name}` for {_wish_in_words(wish)}:",
        f"# {trial.setting.name}, {planned.number} {100 * trial.point.accuracy:.2f}, "
        f"{1000 * trial.wall_s:.1f} ms ({1000 * trial.cpu_s:.1f} of CPU time) an image",
        f"# on {planned.images[0]} images of {planned.set_name}, seed {seed}; {machine()}.",
        "# The name is that of the recipe, so that its weights are found.",
    ]
    keys = {key: plain(value) for key, value in trial.setting.keys.items()}
    values = {
        **{"name": name, "_BASE_": base_name(cfg_name, folder)},
        **{key: value for key, value in given.items() if key != "name"},
        "TEST": {**given.get("TEST", {}), **keys},
    }
    return "\n".join(lines) + "\n" + dump_values(values)


def as_dict(planned: PlannedTest, wish: Wish, seed: int) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "set": planned.set_name,
        "seed": seed,
        "images": list(planned.images),
        "machine": machine(),
        "clock": wish.clock,
        "budget_s": wish.budget_s,
        "loss": wish.loss,
        "number": planned.number,
        "trials": [_trial_dict(trial) for trial in planned.trials],
        "front": list(planned.front),
        "chosen": planned.chosen,
        "confirmed": [_trial_dict(trial) for trial in planned.confirmed],
        "rival": planned.confirmation.rival,
        "rival_lead": planned.confirmation.lead,
        "rival_lead_spread": planned.confirmation.spread,
        "on_front_of_other_half": planned.confirmation.is_on_front,
        "within_chance": planned.confirmation.is_within_chance,
    }


def _trial_dict(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.setting.name,
        "keys": trial.setting.keys,
        "wall_s": trial.wall_s,
        "cpu_s": trial.cpu_s,
        "pixels": trial.pixels,
        "memory_bytes": trial.memory_bytes,
        "accuracy": trial.point.accuracy,
        "spread": trial.point.spread,
        "recall": {
            size: {"objects": objects, "found": found}
            for size, objects, found in zip(
                trial.recall.names(), trial.recall.objects.tolist(), trial.recall.found.tolist()
            )
        },
    }


def _plot(planned: PlannedTest, wish: Wish, name: str, path: Path) -> None:
    from sniper.vis.figures import save_figure
    from sniper.vis.fronts import SettingView, plot_front

    views = [
        SettingView(
            trial.setting.name,
            trial.setting.mode,
            trial.point.cost,
            trial.point.accuracy,
            trial.point.spread,
            trial.setting.name in planned.front,
            trial.setting.name == planned.chosen,
            trial.recall.recall,
        )
        for trial in planned.trials
    ]
    recall = planned.trials[0].recall
    clock = "CPU time" if wish.clock == "cpu" else "wall clock"
    figure = plot_front(
        views,
        heading=f"{name} on {planned.images[0]} images of {planned.set_name}",
        cost_name=f"ms an image, {clock}, {machine()}",
        accuracy_name=planned.number,
        sizes=recall.names(),
        objects=recall.objects.tolist(),
        budget_s=wish.budget_s,
    )
    save_figure(figure, path)
    logging.getLogger(__name__).info("plot: %s", path)

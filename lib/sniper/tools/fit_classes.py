"""`sniper fit-classes`: new classes for a detector, learnt from pictures without boxes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sniper.config.kinds import Float
from sniper.data.folder_walk import DETECTIONS_FILE, DRAWINGS_FOLDER
from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_config_flags,
    add_json_flag,
    add_out_flag,
    as_count,
    as_positive,
    as_positive_number,
    as_ratio,
    command_parser,
    value_of,
    write_json,
)
from sniper.tools.cli import run_main
from sniper.tools.which_model import add_model_flags, check_model_flags, chosen_model

if TYPE_CHECKING:
    from sniper.inference.softmax_fit import Schedule2018
    from sniper.runs.fit_classes import FitOptions, FitResult

logger = logging.getLogger(__name__)

EXIT_SKIPPED = 3
_RATE_2018 = 1e-3
# Features of length 1 are shorter than raw ones by a factor whose square this makes up for.
_RATE_NORMALISED = 5.0

_DESCRIPTION = """\
Teaches a detector new classes from pictures alone: FOLDER has a folder for each class, named like
it; boxes are not needed. The detector's backbone makes one row of features of each picture, and a
softmax classifier is fitted to them. Detection finds boxes as before, and scores each
P(object) x P(class | object): what is no object at all is rejected by the first factor.

Some pictures of each class are held out (the first 40 %). The accuracy on them and a table of
confusions are printed: rows are what pictures show, columns what they were taken for, P is the mean
probability of the right class. Nothing is learnt from them; --holdout 0 learns from all.

Features are kept by network and file content, so that further fits take seconds.
"""
_EPILOG = """\
examples:
  sniper fit-classes pets/ --cfg my.yml --out pets.npz
  sniper detect photos/ --out found --cfg my.yml --classes pets.npz
  sniper fit-classes parrot/ --add-to pets.npz --cfg my.yml --out pets.npz     (one more class)
  sniper fit-classes pets/ --schedule 2018 --pooling mean --cfg my.yml --out pets.npz \\
      --draw shown --set TEST.NMS 0.45     (the demonstration of 2018 in one command)

Pictures that cannot be read are left out and listed at the end, and the exit code is 3.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper fit-classes", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a folder for each class, or that of one class"
    )
    add_out_flag(parser, "FILE.npz", "file of the classes", required=True)
    add_model_flags(parser)
    _add_picture_flags(parser)
    _add_fit_flags(parser)
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="DIR",
        help="then detect the classes in the pictures held out, and draw them into DIR",
    )
    parser.add_argument(
        "--threshold",
        type=as_ratio,
        default=0.5,
        metavar="S",
        help="least score of an object that --draw shows (default: %(default)s)",
    )
    add_json_flag(parser)
    add_config_flags(parser)
    return parser


def _add_picture_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--add-to", type=Path, metavar="FILE", help="add the classes to those of this file"
    )
    parser.add_argument(
        "--background",
        type=Path,
        metavar="FOLDER",
        help="pictures that show none of the classes: what looks like them is rejected, too",
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--holdout",
        type=value_of(Float(0, 0.99)),
        default=0.4,
        metavar="S",
        help="share of each class that is held out, the first by name (default: %(default)s)",
    )
    split.add_argument(
        "--pictures", type=as_positive, metavar="N", help="learn from the last N of each class"
    )
    split.add_argument(
        "--holdout-list", type=Path, metavar="FILE", help="text file of the pictures held out"
    )
    parser.add_argument(
        "--size",
        type=as_positive,
        metavar="PX",
        help="long side that pictures are scaled to (default: TRAIN.CHIP_SIZE)",
    )
    parser.add_argument(
        "--pooling",
        choices=("roi", "mean"),
        default="roi",
        help="of a picture: as detection pools boxes, or the mean of the map (2018) (default: roi)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where features are kept (default: feature_cache beside --out)",
    )


def _add_fit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--normalise", action="store_true", help="divide each row of features by its length"
    )
    parser.add_argument(
        "--decay",
        type=as_positive_number,
        default=1e-3,
        metavar="D",
        help="cost of large weights: more gives softer probabilities (default: %(default)s)",
    )
    parser.add_argument(
        "--schedule",
        choices=("best", "2018"),
        default="best",
        help="to the minimum over all pictures, or by updates as in 2018 (default: best)",
    )
    parser.add_argument(
        "--lr",
        type=as_positive_number,
        metavar="R",
        help=f"with --schedule 2018: learning rate (default: {_RATE_2018:g}, with --normalise "
        f"{_RATE_NORMALISED:g})",
    )
    parser.add_argument(
        "--epochs", type=as_positive, metavar="N", help="with --schedule 2018 (default: 250)"
    )
    parser.add_argument(
        "--seed", type=as_count, default=0, metavar="N", help="with --schedule 2018 (default: 0)"
    )


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    check_model_flags(args)
    _check_flags(args)
    from sniper.process import start_logging

    start_logging()
    cfg, weights, name = chosen_model(args)
    result = _fit(args, cfg, weights)
    result.classes.save(args.out)
    _tell(result, name)
    logger.info("%d classes: %s", len(result.classes.names), args.out)
    if args.json is not None:
        write_json(args.json, _numbers(result))
    if args.draw is not None:
        _draw(args, cfg, weights, result)
    for one in result.skipped:
        logger.warning("left out: %s: %s", one.name, one.reason)
    return EXIT_SKIPPED if result.skipped else 0


def _check_flags(args: argparse.Namespace) -> None:
    only_2018 = [flag for flag in ("lr", "epochs") if getattr(args, flag) is not None]
    if only_2018 and args.schedule != "2018":
        raise ConfigError(
            "the best fit has no learning rate and no epochs",
            got=", ".join(f"--{flag}" for flag in only_2018),
            fix="add --schedule 2018, or leave them out",
        )
    if args.out.suffix.lower() != ".npz":
        raise ConfigError("classes are written as an .npz file", where="--out", got=args.out)


def _fit(args: argparse.Namespace, cfg: object, weights: Path | None) -> FitResult:
    from sniper.data.picture_folders import class_folders, pictures_of
    from sniper.inference.picture_classes import load_classes
    from sniper.runs.fit_classes import fit_classes
    from sniper.runs.picture_features import PictureFeatures
    from sniper.runs.predictor import plan_and_model

    # What is wrong with the folders is told before the network is loaded.
    folders = class_folders(args.folder)
    background = pictures_of(args.background) if args.background is not None else []
    add_to = load_classes(args.add_to) if args.add_to is not None else None
    options = _options(args)
    plan, model = plan_and_model(cfg, weights, devices=args.gpus)
    features = PictureFeatures(
        *(plan, model),
        size_px=args.size or plan.chip_size,
        pooling=args.pooling,
        cache_dir=args.cache or args.out.parent / "feature_cache",
    )
    return fit_classes(folders, features, options, background=background, add_to=add_to)


def _options(args: argparse.Namespace) -> FitOptions:
    from sniper.data.picture_folders import HoldOut, read_file_list
    from sniper.runs.fit_classes import FitOptions

    files = read_file_list(args.holdout_list) if args.holdout_list is not None else None
    hold_out = HoldOut(args.holdout, args.pictures, files)
    return FitOptions(hold_out, args.normalise, _schedule(args), args.decay)


def _schedule(args: argparse.Namespace) -> Schedule2018 | None:
    from sniper.inference.softmax_fit import Schedule2018

    if args.schedule != "2018":
        return None
    rate = args.lr or (_RATE_NORMALISED if args.normalise else _RATE_2018)
    return Schedule2018(lr=rate, epochs=args.epochs or Schedule2018.epochs, seed=args.seed)


def _tell(result: FitResult, model: str) -> None:
    logger.info(
        "model: %s; %d pictures, %d features each, fitted in %.1f s",
        *(model, len(result.classes.labels), result.classes.features.shape[1], result.fit_s),
    )
    report = result.report
    if not report.total:
        print("no pictures were held out: nothing says how well the classes are told apart")
        return
    print(report.table())
    print(f"accuracy on {report.total} pictures held out: {report.accuracy:.1%}")


def _numbers(result: FitResult) -> dict[str, object]:
    learnt = [
        int((result.classes.labels == label).sum()) for label in range(len(result.classes.names))
    ]
    return {**result.report.as_dict(), "learnt_from": learnt, "fit_s": round(result.fit_s, 3)}


def _draw(args: argparse.Namespace, cfg: object, weights: Path | None, result: FitResult) -> None:
    from sniper.data.sources import open_source
    from sniper.inference.detect_files import detect_files
    from sniper.inference.drawings import Drawings
    from sniper.locks import folder_lock
    from sniper.runs.predictor import Predictor

    if not result.held_out:
        raise ConfigError("--draw shows pictures held out, of which there are none")
    predictor = Predictor(cfg, weights, devices=args.gpus, classes=result.classes)
    source = open_source(list(map(str, result.held_out)))
    with folder_lock(args.draw, fix="or choose another folder for --draw"):
        drawings = Drawings(args.draw / DRAWINGS_FOLDER, ".jpg", threshold=args.threshold)
        with drawings:
            summary = detect_files(
                *(predictor, source, args.draw / DETECTIONS_FILE),
                threshold=args.threshold,
                drawings=drawings,
                about={"classes_file": str(args.out)},
            )
    logger.info("%d objects in %d pictures: %s", summary.objects, summary.images, args.draw)

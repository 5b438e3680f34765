"""`sniper detect`: objects in any images and videos, as JSON and drawings."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sniper.config import TEST_ENGINES, TEST_MODES
from sniper.data.folder_walk import DETECTIONS_FILE, DRAWINGS_FOLDER
from sniper.tools.arguments import (
    add_config_flags,
    add_mode_flag,
    add_out_flag,
    as_positive,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.which_model import add_model_flags, check_model_flags, chosen_model

if TYPE_CHECKING:
    from sniper.runs.predictor import Predictor

logger = logging.getLogger(__name__)

EXIT_SKIPPED = 3

_DESCRIPTION = """\
Detects objects in images, folders, patterns, text lists (one path a line) and videos; needs no
annotations. The model is loaded once; memory does not grow with the number of images.

  DIR/detections.json   one line for each image or frame: size, boxes, scores, class names, masks;
                        valid at any time, also after Ctrl-C
  DIR/drawings/...      a picture for each image and an MP4 file for each video, in the folders and
                        with the names of the originals
"""
_EPILOG = """\
examples:
  sniper detect holiday.jpg --out found                      (the newest trained model)
  sniper detect photos/ films/*.mp4 --recursive --out found --cfg sniper_res18_toy
  sniper detect list.txt --out found --model detector.zip --format none
  sniper detect photos/ --out found --cfg my.yml --classes pets.npz    (see sniper fit-classes)

Files that cannot be read are left out and listed at the end, and the exit code is 3. Other exit
codes: 1 the run failed, 2 wrong usage or configuration, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper detect", _DESCRIPTION, _EPILOG)
    parser.add_argument("files", nargs="+", metavar="FILES", help="what to detect on")
    add_out_flag(parser, "DIR", "folder of results", required=True)
    add_model_flags(parser)
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="find the classes of this file of `sniper fit-classes` instead of the network's own",
    )
    add_mode_flag(parser, TEST_MODES)
    parser.add_argument(
        "--batch", type=as_positive, metavar="N", help="images per device in one pass"
    )
    parser.add_argument(
        "--engine",
        choices=TEST_ENGINES,
        help="what computes the network (default: TEST.ENGINE, else what fits the weights)",
    )
    parser.add_argument(
        "--threshold",
        type=as_ratio,
        default=0.5,
        metavar="S",
        help="least score of an object (default: %(default)s)",
    )
    parser.add_argument(
        "--class-agnostic",
        action="store_true",
        help="boxes of the class `object`, with their probability of being any object",
    )
    parser.add_argument(
        "--format",
        choices=("jpg", "png", "pdf", "none"),
        default="jpg",
        help="of the pictures; none: draw nothing (default: %(default)s)",
    )
    parser.add_argument("--recursive", action="store_true", help="folders below folders as well")
    parser.add_argument(
        "--every", type=as_positive, default=1, metavar="N", help="take each N-th frame of videos"
    )
    parser.add_argument(
        "--stop_on_error", action="store_true", help="end at the first file that cannot be read"
    )
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    check_model_flags(args)
    from sniper.data.sources import open_source
    from sniper.inference.detect_files import detect_files
    from sniper.inference.drawings import Drawings
    from sniper.locks import folder_lock
    from sniper.process import start_logging
    from sniper.training.interrupts import StopRequest

    start_logging()
    on_error = "raise" if args.stop_on_error else "skip"
    source = open_source(args.files, recursive=args.recursive, every=args.every, on_error=on_error)
    # SIGTERM too ends the run in good order.
    with folder_lock(args.out, fix="or choose another --out"), StopRequest().listen():
        predictor, model = _load(args)
        logger.info("model: %s, %d classes", model, len(predictor.class_names) - 1)
        drawings = Drawings(
            args.out / DRAWINGS_FOLDER,
            f".{args.format}",
            threshold=args.threshold,
            every=args.every,
        )
        with drawings:
            summary = detect_files(
                predictor,
                source,
                args.out / DETECTIONS_FILE,
                threshold=args.threshold,
                drawings=None if args.format == "none" else drawings,
                about=_about(args, model),
            )
    logger.info(
        "%d objects in %d images: %s", summary.objects, summary.images, args.out / DETECTIONS_FILE
    )
    logger.info("%s", summary.stats.table())
    for one in summary.skipped:
        logger.warning("left out: %s: %s", one.name, one.reason)
    if summary.skipped:
        logger.warning("left out because they could not be read: %d", len(summary.skipped))
    return EXIT_SKIPPED if summary.skipped else 0


def _about(args: argparse.Namespace, model: str) -> dict[str, str]:
    about = {"model": model}
    return about if args.classes is None else {**about, "classes_file": str(args.classes)}


def _load(args: argparse.Namespace) -> tuple[Predictor, str]:
    """The model, and what it is called in messages and in the JSON file."""
    from sniper.runs.predictor import Predictor

    cfg, weights, name = chosen_model(args)
    options = {
        "mode": args.mode,
        "devices": args.gpus,
        "batch_images": args.batch,
        "class_agnostic": True if args.class_agnostic else None,
        "classes": args.classes,
        "engine": args.engine,
    }
    return Predictor(cfg, weights, **options), name

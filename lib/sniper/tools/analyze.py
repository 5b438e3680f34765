"""`sniper analyze`: what is wrong with the detections of a set, in numbers and plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.config import load_config
from sniper.data import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.image import read_image
from sniper.data.one_class import as_one_class
from sniper.errors import DataError
from sniper.evaluation import protocol_of
from sniper.files import atomic_write_text
from sniper.runs.datasets import open_dataset
from sniper.runs.folders import ANALYSIS_NAME, analysis_folder, results_folder
from sniper.runs.resolve import data_source
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_out_flag,
    as_count,
    as_ratio,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.error_study import Study, marks_of_image, study, summary
from sniper.tools.explain.training_set import log_to_stderr
from sniper.vis.confusion_matrix import plot_confusion
from sniper.vis.error_pictures import draw_errors
from sniper.vis.error_plots import plot_errors
from sniper.vis.figures import save_figure

WORST_FOLDER = "worst"

_DESCRIPTION = """\
Says what is wrong with the detections that main_test.py wrote, and what it costs:

  summary.txt    errors by cause and what AP50 would be without them, confusions, worst images
  errors.png     causes, scores, sizes of the objects, choice of a score threshold
  confusion.png  which classes are taken for which, with a row and a column for the background
  analysis.json  all of these numbers
  worst/*.png    the images with the most errors: what is wrong in them, by cause

Causes are those of TIDE: wrong class, box off, both, duplicate, background, missed. Boxes only.
"""
_EPILOG = """\
examples:
  sniper analyze --cfg sniper_res18_toy --out analysis
  sniper analyze --cfg my.yml --results other_results.json --score 0.3
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the analysis; 0, or 2 for a wrong config and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper analyze", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--results",
        type=Path,
        metavar="PATH",
        help="COCO result file, or for Pascal VOC the folder with VOC<year>/Main (default: what "
        "main_test.py wrote for this config)",
    )
    add_out_flag(
        parser, "DIR", "folder for the files (default: `analysis_<set>` beside the results)"
    )
    parser.add_argument(
        "--score",
        type=as_ratio,
        default=0.5,
        metavar="S",
        help="least score for confusions, worst images and counts (default: %(default)s)",
    )
    parser.add_argument(
        "--worst",
        type=as_count,
        default=50,
        metavar="N",
        help="images with the most errors to list in analysis.json (default: %(default)s)",
    )
    parser.add_argument(
        "--draw",
        type=as_count,
        default=8,
        metavar="N",
        help="of these, images to draw with their errors in the folder worst; 0: none "
        "(default: %(default)s)",
    )
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if not 0 <= args.score <= 1:
        parser.error("--score must be 0 to 1")
    if args.worst < 0:
        parser.error("--worst must not be negative")
    log_to_stderr()
    cfg = load_config(args.cfg, args.overrides)
    dataset = open_dataset(data_source(cfg), cfg.dataset.test_image_set)
    if cfg.TEST.CLASS_AGNOSTIC:
        dataset = as_one_class(dataset)
    table = _results(cfg, dataset, args.results)
    result = study(dataset, table, args.score, args.worst)
    out = args.out or analysis_folder(cfg, dataset.image_set)
    print(summary(result), end="")
    _write(out, result)
    _draw_worst(out / WORST_FOLDER, result, args.draw)
    print(f"pictures and numbers: {out}", file=sys.stderr)
    return 0


def _results(cfg: EasyDict, dataset: Dataset, path: Path | None) -> DetectionTable:
    protocol = protocol_of(dataset)
    return protocol.read(path or protocol.results_path(results_folder(cfg), dataset), dataset)


def _write(out: Path, result: Study) -> None:
    name = f"{result.dataset.name}, score {result.score:g} or more"
    save_figure(plot_errors(result.view()), out / "errors.png")
    save_figure(plot_confusion(result.confusion, name), out / "confusion.png")
    write_json(out / ANALYSIS_NAME, result.as_dict())
    atomic_write_text(out / "summary.txt", summary(result))


def _draw_worst(folder: Path, result: Study, count: int) -> None:
    """Pictures of the images with the most errors; those of an earlier call go."""
    for path in folder.glob("[0-9][0-9]_*.png"):
        path.unlink()
    places = {record.original_id: place for place, record in enumerate(result.dataset.records)}
    for number, image in enumerate(result.worst[:count], 1):
        try:
            record = result.dataset.records[places[image.image_id]]
            pixels = read_image(image.image, frame=record.frame)
        except DataError as error:
            # Results of other detectors can be analysed without their images.
            print(f"the worst images are not drawn: {error}", file=sys.stderr)
            return
        name = Path(image.image)
        heading = (
            f"{name.name}: {image.total} errors at score {result.score:g} or more, {image.found} "
            f"of {image.objects} objects found"
        )
        marks = marks_of_image(result, places[image.image_id])
        save_figure(draw_errors(pixels, heading, marks), folder / f"{number:02d}_{name.stem}.png")


if __name__ == "__main__":
    sys.exit(main())

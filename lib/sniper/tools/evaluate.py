"""`sniper evaluate`: the numbers of result files, whoever wrote them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sniper.errors import ConfigError, DataError
from sniper.evaluation import protocol_named, protocol_names, reason_not_evaluated, write_report
from sniper.tools.arguments import (
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Evaluates result files of any detector against annotations: no model, no images, no configuration.

  coco  --truth    a JSON file in COCO format (instances_val2017.json)
        --results  a JSON list of detections with image_id, category_id, bbox and score; with
                   segmentation in every one of them masks are evaluated too
  ilsvrc --truth   the development kit of ILSVRC DET, with its annotation files (a folder or an
                   archive, ILSVRC2013_DET_val_bbox) in it or beside it; or a folder without kit
                   that has sets of its own, <set>_bbox; its MATLAB files are read by SciPy:
                   pip install "sniper-mxnet[matlab]"
        --results  a text file with lines `image class score x1 y1 x2 y2`: numbers of val.txt and
                   of the 200 classes, px as in the annotations
  openimages --truth  the folder with the official files (in it or in folders in it): boxes,
                   verified labels of images, classes, hierarchy; they are read by pandas:
                   pip install "sniper-mxnet[openimages]"
        --results  a CSV file as it is submitted (ImageId,PredictionString), or with a line for
                   each detection (ImageID,LabelName,Score,XMin,XMax,YMin,YMax)
  voc   --truth    the folder VOCdevkit or VOC<year>, or a list VOC<year>/ImageSets/Main/<set>.txt
        --results  the folder with comp4_det_<set>_<class>.txt, or the one with VOC<year>/Main
  wider --truth    a folder with the annotation texts (wider_face_<set>_bbx_gt.txt), the lists of
                   the evaluation (wider_easy_<set>.mat, ...), or both, in it or in folders in it;
                   the lists are read by SciPy or h5py: pip install "sniper-mxnet[wider]"
        --results  the folder with <event>/<name>.txt: name, number, lines `x y width height score`

Prints the table. Numbers of the files are taken as they are; what a category_id means, the report
says that main_test.py writes beside its results, else the truth. The exit code is 3 for missing or
broken files and for detections of images or classes that the truth does not have.
"""
_EPILOG = """\
examples:
  sniper evaluate --protocol coco --truth annotations/instances_val2017.json \\
    --results detections_val2017_results.json --out report.json
  sniper evaluate --protocol openimages --truth open_images/ --image_set validation \\
      --results submission.csv --out report.json
  sniper evaluate --protocol ilsvrc --truth ILSVRC2014_devkit \\
    --results ILSVRC2014_devkit/evaluation/demo.val.pred.det.txt --out report.json
  sniper evaluate --protocol voc --truth data/VOCdevkit --image_set 2007_test \\
    --results output/results --out report.json
  sniper evaluate --protocol wider --truth wider_face/ --image_set val \\
    --results output/results/detections_val_results --out report.json
"""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0, or 2 for wrong flags and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper evaluate", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--protocol",
        required=True,
        metavar="NAME",
        help=f"how to evaluate: {', '.join(protocol_names())}",
    )
    parser.add_argument("--truth", type=Path, required=True, metavar="PATH", help="annotations")
    parser.add_argument("--results", type=Path, required=True, metavar="PATH", help="detections")
    parser.add_argument(
        "--image_set",
        metavar="NAME",
        help="the set, where the truth holds several (default: the one that the names of the "
        "result files fit; of ILSVRC the longest list whose images are all annotated)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the numbers as JSON, and beside them pictures of precision over recall "
        "(coco, wider)",
    )
    parser.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="leave out detections of images or classes that the truth does not have",
    )
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _check_out(args.out, args.truth, args.results)
    protocol = protocol_named(args.protocol)
    dataset = protocol.read_truth(args.truth, args.image_set, args.results)
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        raise DataError(reason, where=args.truth, fix="name a set with annotations")
    report, left_out = protocol.evaluate_files(
        dataset, args.results, leave_out_unknown=args.ignore_unknown
    )
    # First: who reads the table may stop in the middle (`| head`).
    if args.out is not None:
        write_report(args.out, dataset, report, more={"left_out": left_out} if left_out else None)
        logger.info("report in %s", args.out)
        # Matplotlib is slow to load, and often not needed.
        from sniper.vis.precision_recall import save_precision_recall

        save_precision_recall(protocol.curves(dataset, report), args.out.with_suffix(""))
    print(report.table())
    if left_out:
        logger.warning("%d detections of unknown images or classes are left out", left_out)
    return 0


def _check_out(out: Path | None, *inputs: Path) -> None:
    """The evaluation takes long, and what it reads must stay."""
    if out is None:
        return
    if not out.name or out.is_dir():
        raise ConfigError("--out names a folder", got=out, expected="a file for the numbers")
    for path in inputs:
        if path.resolve() == out.resolve() or path.resolve() in out.resolve().parents:
            raise ConfigError(
                "--out would write over what is evaluated, or into it",
                got=out,
                fix="name another file",
            )


if __name__ == "__main__":
    sys.exit(main())

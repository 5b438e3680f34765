"""`sniper check-data`: all problems of a data set at once, before training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from easydict import EasyDict

from sniper.chips.account import Account
from sniper.config import load_config
from sniper.data import Dataset, load_dataset
from sniper.data.problems import ERROR, WARNING
from sniper.errors import DataError
from sniper.process import usable_cores
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_data_flags,
    as_count,
    as_positive,
    command_parser,
    write_json,
)
from sniper.tools.check.findings import Findings
from sniper.tools.check.image_files import check_images
from sniper.tools.check.training import (
    check_chips,
    check_classes,
    check_empty_classes,
    check_legacy_proposals,
    check_proposals,
    check_shared_images,
    first_epoch,
    is_clean,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.training_set import log_to_stderr

_DESCRIPTION = """\
Looks through annotations and images and reports all problems, not only the first:

  errors    missing, unreadable, damaged or cut-off images, images of another size than annotated,
            broken entries, ids and names used twice, boxes that are fractions or corners, classes
            that do not fit dataset.NUM_CLASSES or each other, proposals of another set, and all
            else that keeps training from its first batch
  warnings  boxes without extent or beyond the image, objects listed twice, many crowd regions,
            objects without a mask, classes without objects, boxes that no chip of the configured
            pyramid trains, chips with more boxes than TRAIN.MAX_GT

An account says what became of every annotation: trained, or left out for one reason.

Images are checked by their headers and ends; --decode decodes them all, which takes minutes for
COCO. The exit code is 3 when there are errors, 0 when there are warnings only.
"""
_EPILOG = """\
examples:
  sniper check-data --cfg my.yml
  sniper check-data --cfg my.yml --decode --with-test --json problems.json
  sniper check-data --cfg sniper_mobilenetv2_toy --set dataset.dataset_path data/mine \\
      dataset.NUM_CLASSES 4
"""
EXIT_PROBLEMS = 3


@dataclass(frozen=True, eq=False)
class DataReport:
    """What was looked at and what was found.

    Attributes:
        config: name of the run.
        sets: the sets that could be read.
        findings: the problems.
        decoded: all images were decoded.
        account: what became of the annotations of the training sets, as far as they can be read.
    """

    config: str
    sets: tuple[Dataset, ...]
    findings: Findings
    decoded: bool
    account: Account | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as plain types."""
        return {
            "tool": "check-data",
            "version": 1,
            "config": self.config,
            "decoded": self.decoded,
            "errors": self.findings.count(ERROR),
            "warnings": self.findings.count(WARNING),
            "sets": [_set_numbers(dataset) for dataset in self.sets],
            "account": None if self.account is None else self.account.to_json(),
            "problems": self.findings.to_json(),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; 0 without errors, 3 with errors, 2 for a wrong config."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper check-data", _DESCRIPTION, _EPILOG)
    parser.add_argument("--decode", action="store_true", help="decode every image")
    parser.add_argument(
        "--with-test", action="store_true", help="also check dataset.test_image_set"
    )
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument(
        "--limit",
        type=as_count,
        default=5,
        metavar="N",
        help="lines printed per kind of problem (default: %(default)s; JSON has up to 1000)",
    )
    parser.add_argument(
        "--workers",
        type=as_positive,
        metavar="N",
        help="threads that read images (default: all cores)",
    )
    add_data_flags(parser)
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.limit < 0 or (args.workers is not None and args.workers < 1):
        parser.error("--limit must not be negative, --workers must be positive")
    log_to_stderr()
    cfg = load_config(args.cfg, args.overrides)
    report = check(
        cfg,
        args.image_set,
        with_test=args.with_test,
        decode=args.decode,
        workers=args.workers or usable_cores(),
    )
    if str(args.json) != "-":
        print("\n".join(text_lines(report, args.limit)))
    if args.json is not None:
        write_json(args.json, report.to_json())
    failed = report.findings.count(ERROR)
    failed += report.findings.count(WARNING) if args.strict else 0
    return EXIT_PROBLEMS if failed else 0


def check(
    cfg: EasyDict,
    image_set: str | None = None,
    *,
    with_test: bool = False,
    decode: bool = False,
    workers: int = 1,
) -> DataReport:
    """Checks the data of a configuration.

    Args:
        cfg: a checked configuration.
        image_set: sets joined by `+`; None takes `dataset.image_set`.
        with_test: also look at the annotations and images of `dataset.test_image_set`.
        decode: decode every image instead of looking at its header and end.
        workers: threads that read images.
    """
    names = list(dict.fromkeys((image_set or cfg.dataset.image_set).split("+")))
    findings = Findings()
    training = _read(cfg, names, findings)
    extra = []
    if with_test and cfg.dataset.test_image_set not in names:
        extra = _read(cfg, [cfg.dataset.test_image_set], findings, may_be_empty=True)
    sets = [*training, *extra]
    for dataset in sets:
        check_images(findings, dataset.name, dataset.records, decode=decode, workers=workers)
    check_classes(findings, training, extra, cfg)
    check_empty_classes(findings, training)
    check_shared_images(findings, sets)
    check_proposals(findings, training, cfg)
    if is_clean(findings):
        check_legacy_proposals(findings, training, cfg)
    first = None
    if not findings.counts.keys() & {"fractions", "corners"}:  # no chip suits such boxes
        first = first_epoch(findings, training, names, cfg)
    if first is not None:
        check_chips(findings, first, training, cfg)
    account = None if first is None else first.account
    return DataReport(cfg.name, tuple(sets), findings, decode, account)


def _read(
    cfg: EasyDict, names: Sequence[str], findings: Findings, *, may_be_empty: bool = False
) -> list[Dataset]:
    """The usable parts of the sets, by the readers of training; training sets need objects."""
    with_masks = bool(cfg.TRAIN.WITH_MASK) and not cfg.TRAIN.ONLY_PROPOSAL and not may_be_empty
    sets = []
    for name in names:
        try:
            dataset = load_dataset(
                cfg.dataset.dataset,
                cfg.dataset.dataset_path,
                name,
                with_masks=with_masks,
                legacy_boxes=bool(cfg.TRAIN.LEGACY_BOXES),
                annotation_file=cfg.dataset.annotation_file,
                image_folder=cfg.dataset.image_folder,
                exif=cfg.dataset.EXIF,
                on_problem=findings.take,
            )
        except DataError as error:
            findings.add_error("annotations", name, error)
            continue
        sets.append(dataset)
        if not may_be_empty:
            _check_objects(dataset, findings)
    return sets


def _check_objects(dataset: Dataset, findings: Findings) -> None:
    if not dataset.has_annotations:
        text = f"there are no annotations in {dataset.annotation_path}"
        findings.add("annotations", dataset.name, text)
    if not dataset.num_objects:
        findings.add("annotations", dataset.name, "it has no object to train on")


def _set_numbers(dataset: Dataset) -> dict[str, Any]:
    classes = [record.gt_classes for record in dataset.records]
    with_objects = len(np.unique(np.concatenate([np.zeros(0, np.int32), *classes])))
    return {
        "name": dataset.name,
        "annotations": dataset.annotation_path,
        "images": len(dataset.records),
        "images_without_objects": sum(record.num_gt == 0 for record in dataset.records),
        "objects": dataset.num_objects,
        "ignored_objects": dataset.num_ignored,
        "classes": len(dataset.class_names) - 1,
        "classes_without_objects": len(dataset.class_names) - 1 - with_objects,
        "counts": {entry.name: count for entry, count in dataset.counts.items()},
    }


def text_lines(report: DataReport, limit: int) -> Iterator[str]:
    """The report as lines of text, with at most `limit` examples of each kind of problem."""
    for dataset in report.sets:
        numbers = _set_numbers(dataset)
        yield f"{dataset.name} ({dataset.annotation_path})"
        yield (
            f"  {numbers['images']} images ({numbers['images_without_objects']} without objects), "
            f"{numbers['objects']} objects of {numbers['classes']} classes, "
            f"{numbers['ignored_objects']} crowd regions or difficult objects"
        )
        images = max(numbers["images"], 1)
        yield (
            f"  {numbers['objects'] / images:.1f} objects an image, "
            f"{numbers['classes_without_objects']} classes without objects"
        )
        for entry, count in dataset.counts.items():
            yield f"  {count} {entry.text} ({count / images:.1f} an image)"
    if report.account is not None:
        yield ""
        yield from _account_lines(report.account)
    for severity in (ERROR, WARNING):
        kinds = list(report.findings.kinds(severity))
        if kinds:
            yield ""
            yield f"{severity.upper()}S"
        for kind, count, examples in kinds:
            yield f"  {kind.title}: {count} -> {kind.fix}"
            for example in examples[:limit]:
                yield f"      {example.where}: {example.text}"
            if 0 < limit < count:
                yield f"      ... and {count - limit} more"
    yield ""
    yield _verdict(report)


def _account_lines(account: Account) -> Iterator[str]:
    width = len(str(account.read))
    yield "ANNOTATIONS of the training sets"
    yield f"  {account.read} read"
    yield f"  {account.trained:{width}} trained"
    for entry, count in account.left_out.items():
        yield f"  {count:{width}} left out: {entry.text}"
    for entry, count in account.remarks.items():
        yield f"  {count:{width}} of the objects {entry.text}"


def _verdict(report: DataReport) -> str:
    errors, warnings = report.findings.count(ERROR), report.findings.count(WARNING)
    if not errors and not warnings:
        return "No problems found." + ("" if report.decoded else " (--decode looks closer.)")
    text = "Training would fail or learn nonsense." if errors else "Training works."
    return f"{_number(errors, 'error')}, {_number(warnings, 'warning')}. {text}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())

"""`sniper convert-data`: data sets from one format to another."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sniper.data import Dataset, format_names, load_dataset
from sniper.data.classes import join_classes
from sniper.data.problems import NO_MASK, Problem, stop_at_errors
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.tools.arguments import add_out_flag, command_parser
from sniper.tools.cli import run_main
from sniper.tools.convert.content import Conversion, set_content, target_names
from sniper.tools.convert.writers import TARGETS, Target
from sniper.tools.explain.training_set import log_to_stderr

LINK, COPY = "link", "copy"
_BOXES_ONLY = frozenset({"voc", "pascalvoc", "folder", "imagenet"})

_DESCRIPTION = """\
Writes sets of one format in another: images, boxes, outlines, class names, and which objects need
not be found. What is read is what training reads; what the new format cannot hold is counted and
told. Afterwards the new sets are read again and compared. Nothing is written over.

  coco   annotations/instances_<set>.json, images/<set>/; boxes, outlines, crowd and ignore flags
  voc    VOCSet/ with classes.txt, sets Set_<set>; boxes, difficult flags
  yolo   data.yaml, images/<set>/, labels/<set>/; boxes or outlines
"""
_EPILOG = """\
examples:
  sniper convert-data --from coco --data data/mine --sets train+val --to voc --out data/mine_voc
  sniper convert-data --from voc --data data/VOCdevkit --sets 2007_test --to yolo \
    --out data/voc_yolo --images copy
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; 0, 2 for wrong flags, 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper convert-data", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="FORMAT",
        help=f"format of the sets: {', '.join(format_names())}",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="where they are, as dataset.dataset_path",
    )
    parser.add_argument(
        "--sets", required=True, metavar="A+B", help="their names, as dataset.image_set"
    )
    parser.add_argument("--to", choices=tuple(TARGETS), required=True, help="the new format")
    add_out_flag(parser, "DIR", "the new folder, which must not be there yet", required=True)
    parser.add_argument(
        "--images",
        choices=(LINK, COPY),
        default=LINK,
        help="link: the new images are links to the old files (default: %(default)s)",
    )
    parser.add_argument("--boxes", action="store_true", help="leave outlines out")
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    log_to_stderr()
    _check_out(args.out, args.data)
    names = list(dict.fromkeys(args.sets.split("+")))
    with_masks = not args.boxes and args.source.lower() not in _BOXES_ONLY
    datasets = [
        load_dataset(args.source, args.data, name, with_masks=with_masks, on_problem=_hear)
        for name in names
    ]
    conversion = _conversion(datasets)
    target = TARGETS[args.to]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{args.out.name}-", dir=args.out.parent) as folder:
        made = Path(folder) / args.out.name
        made.mkdir()
        target.write(made, conversion, _link if args.images == LINK else _copy)
        _compare(made, args.to, target, conversion)
        _move(made, args.out)
    _tell(args.out, args.to, target, conversion)
    return 0


def _hear(problem: Problem) -> None:
    # Objects without an outline are converted as they are.
    if problem.kind is not NO_MASK:
        stop_at_errors(problem)


def _check_out(out: Path, data: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out is there already", got=out, fix="name a new folder")
    if data.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError("--out is inside of --data", got=out, fix="name a folder beside it")


def _conversion(datasets: Sequence[Dataset]) -> Conversion:
    for dataset in datasets:
        if len(dataset.class_names) < 2:
            raise DataError(
                "the set has no classes", where=dataset.annotation_path, fix="convert labelled sets"
            )
    classes = join_classes(datasets)
    pairs = zip(datasets, target_names(datasets))
    contents = tuple(set_content(dataset, name, classes) for dataset, name in pairs)
    return Conversion(classes, contents, Counter())


def _link(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(os.path.realpath(source))
    except FileExistsError:
        _refuse_twice(target)
    except OSError as error:
        raise TrainingError(
            "an image cannot be linked", where=target, got=error, fix="--images copy"
        ) from error


def _copy(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _refuse_twice(target)
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise TrainingError("an image cannot be copied", where=target, got=error) from error


def _refuse_twice(target: Path) -> None:
    raise DataError("two images would have one place", where=target, fix="name them differently")


def _compare(folder: Path, kind: str, target: Target, conversion: Conversion) -> None:
    """Reads what was written: the conversion is right where training would see the same."""
    for one in conversion.sets:
        read = load_dataset(kind, folder, target.set_name(one.name))
        expected = (len(one.pictures), one.count(ignored=False))
        found = (len(read.records), read.num_objects)
        if found != expected:
            raise DataError(
                "the new set is not the old one, and is not kept",
                where=one.name,
                got="{} images, {} objects".format(*found),
                expected="{} images, {} objects".format(*expected),
                fix="sniper check-data shows what is special in the old one",
            )


def _move(made: Path, out: Path) -> None:
    try:
        if out.exists():
            out.rmdir()  # an empty folder
        made.rename(out)
    except OSError as error:
        raise ConfigError(
            "--out has appeared meanwhile", got=error, fix="name a new folder"
        ) from error


def _tell(out: Path, kind: str, target: Target, conversion: Conversion) -> None:
    for one in conversion.sets:
        print(
            f"{target.set_name(one.name)}: {len(one.pictures)} images, {one.count(ignored=False)} "
            f"objects, {one.count(ignored=True)} that need not be found"
        )
    for text, count in (+conversion.losses).items():
        print(f"  {count} {text}")
    sets = [target.set_name(one.name) for one in conversion.sets]
    print(
        f"recipe: dataset: {{dataset: {kind}, dataset_path: {out}, image_set: {sets[0]}, "
        f"test_image_set: {sets[-1]}, NUM_CLASSES: {len(conversion.classes.names)}}}"
    )


if __name__ == "__main__":
    sys.exit(main())

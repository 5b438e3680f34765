"""`sniper make-toy-data OUT`: a small synthetic data set, in the layout of COCO or WIDER FACE."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sniper.errors import ConfigError, DataError
from sniper.tools.arguments import (
    as_count,
    as_positive,
    as_positive_number,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.toy.face_scene import CROWD, FaceSceneSettings, render_face_scene
from sniper.tools.toy.face_set import FaceSetSettings, make_face_set
from sniper.tools.toy.picture import encode_jpeg
from sniper.tools.toy.scene import SceneSettings, render_scene
from sniper.tools.toy.settings import DEMO_SPLIT_NUMBER, FINE_SIZES_PX, SPLITS, ToySettings
from sniper.tools.toy.shapes import CLASSES
from sniper.tools.toy.writer import make_toy_data

_DEMO_SEED, _DEMO_INDEX = 7, 7
_DEMO_BYTES = 150_000
# Of fine classes: two of each shape; ten pictures to learn from and ten to measure on.
_HELD_OUT, _NOVEL, _SHOTS = 20, 60, 20

_FACE_SETTINGS = ("train", "val", "test", "seed", "sizes", "long-side")
_FACE_FLAGS = (
    *(name.replace("-", "_") for name in _FACE_SETTINGS),
    *("faces", "out", "demo", "workers", "force"),
)

_DESCRIPTION = """\
Makes a detection data set of drawn shapes in the COCO layout, with objects from 12 to 400 px:
OUT/annotations/instances_{train,val,test}.json, image_info_test-dev2026.json and OUT/images/.
Nine tenths of a class's objects have its typical colour, the others and the distractors any colour.
The same settings give the same files; a folder that already holds them is reused.

With --openimages OUT/annotations/ has the tables of Open Images as well, and the classes a
hierarchy of round and angular shapes.

With --fine every shape in every hue and filling is a class: 140 such as striped-red-ring, of any
size at any place. 20 of them are held out: OUT/annotations/instances_novel.json has scenes of
these, OUT/few_shot/CLASS/ pictures of one object each, without boxes (`sniper fit-classes`).

With --faces the set is in the layout of WIDER FACE (`dataset: wider`): drawn faces, many of them
small and in crowds, and as many look-alikes of the same sizes, places and colours without boxes.
"""
_EPILOG = """\
examples:
  sniper make-toy-data data/toy --train 200 --val 40
  sniper make-toy-data data/toy_open --openimages
  sniper make-toy-data data/toy_far --openimages --drop-far 0.3 --images-from data/toy_open
  sniper make-toy-data data/toy_faces --faces
  sniper make-toy-data data/toy_fine --fine
  sniper make-toy-data data/toy_fine_all --fine --held-out 0     (all classes with boxes)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the data set is there, 2 for a bad setting, 3 for a folder that cannot be used.
    """
    return run_main(_run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.faces:
        _refuse_other_flags(args, parser)
    if args.out is None and args.demo is None:
        parser.error("name the folder to make: sniper make-toy-data OUT")
    if args.demo is not None:
        write_demo_image(args.demo, faces=args.faces)
        print(f"{args.demo}: demo image written")
    if args.out is not None:
        if args.faces:
            _make_faces(args)
        else:
            _make(args)
    return 0


def _refuse_other_flags(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Flags that say something of shapes would do nothing."""
    given = [name for name in vars(args) if getattr(args, name) != parser.get_default(name)]
    other = [name for name in given if name not in _FACE_FLAGS]
    if other:
        raise ConfigError(
            "sets of faces have no such setting",
            got=", ".join(f"--{name.replace('_', '-')}" for name in other),
            expected=f"of the settings only {', '.join(f'--{n}' for n in _FACE_SETTINGS)}",
        )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper make-toy-data", _DESCRIPTION, _EPILOG)
    default, scene = ToySettings(), SceneSettings()
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder to make")
    for split in SPLITS:
        name = "test-dev" if split.name.startswith("test-dev") else split.name
        count = default.count(split)
        text = f"images of {split.name} (default {count})"
        parser.add_argument(f"--{name}", type=as_count, default=count, metavar="N", help=text)
    parser.add_argument(
        "--seed",
        type=as_count,
        default=default.seed,
        metavar="N",
        help="of the random numbers (default %(default)s)",
    )
    parser.add_argument(
        "--classes", type=as_positive, default=scene.classes, metavar="N",
        help="use the first N of: " + ", ".join(c.name for c in CLASSES),
    )  # fmt: skip
    objects = (scene.min_objects, scene.max_objects)
    parser.add_argument(
        "--objects", type=as_positive, nargs=2, default=objects, metavar=("MIN", "MAX"),
        help="objects aimed at per image (default {} {})".format(*objects),
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=as_positive_number, nargs=2, metavar=("MIN", "MAX"),
        help="object sizes in px, log-uniform (default 12 400; --fine: 32 256, --faces: 8 400)",
    )  # fmt: skip
    parser.add_argument(
        "--long-side", type=as_positive, default=scene.long_side_px, metavar="PX",
        help="long side of the largest images (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size-bound", action="store_true",
        help="the class decides the size, from small to large: what training on chips finds hard",
    )  # fmt: skip
    _add_fine_flags(parser)
    parser.add_argument(
        "--faces", action="store_true",
        help="faces and look-alikes in the layout of WIDER FACE; with --demo its picture",
    )  # fmt: skip
    parser.add_argument(
        "--openimages", action="store_true",
        help="also write the official tables of Open Images: boxes, some of them around groups, "
        "verified labels, a small hierarchy",
    )  # fmt: skip
    drop = parser.add_mutually_exclusive_group()
    drop.add_argument(
        "--drop-labels", type=as_ratio, default=default.drop_labels, metavar="SHARE",
        help="leave this share of the objects of train without annotation, any of them but the "
        "last one of an image (default 0)",
    )  # fmt: skip
    drop.add_argument(
        "--drop-far", type=as_ratio, default=default.drop_far, metavar="SHARE",
        help="the same share, but of the objects farthest from annotated ones: annotation starts "
        "at one object of each image, drawn by chance, and goes on to neighbours across gaps of "
        "up to a px limit that is the same for all images and follows from SHARE",
    )  # fmt: skip
    parser.add_argument(
        "--drop-seed", type=as_count, default=default.drop_seed, metavar="N",
        help="of the chance in --drop-labels and --drop-far (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--images-from", type=Path, metavar="FOLDER",
        help="make only the annotations anew and link the images (hard links, no further room) of "
        "this generated set, whose settings are the same but for --openimages and --drop-...",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=as_positive, metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a generated data set of other settings"
    )
    parser.add_argument(
        "--demo", type=Path, metavar="FILE", help="write the demo image, which is in no split"
    )
    return parser


def _add_fine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fine", action="store_true", help="fine classes: shape x hue x filling, 140 in all"
    )
    numbers = {
        "held-out": (_HELD_OUT, "fine classes that only `novel` and `few_shot` show"),
        "novel": (_NOVEL, "images of scenes with the classes held out"),
        "shots": (_SHOTS, "pictures of each class held out"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(
            f"--{name}", type=as_count, metavar="N", help=f"with --fine: {text} (default {default})"
        )


def _settings(args: argparse.Namespace) -> ToySettings:
    default = SceneSettings()
    sizes = args.sizes
    if sizes is None:
        sizes = FINE_SIZES_PX if args.fine else (default.min_size_px, default.max_size_px)
    (least, most), (smallest, largest) = args.objects, sizes
    scene = SceneSettings(
        *(args.classes, least, most, smallest, largest), args.long_side, args.size_bound, args.fine
    )
    fine = {"held_out": args.held_out, "novel": args.novel, "shots": args.shots}
    given = [name for name, value in fine.items() if value is not None]
    if given and not args.fine:
        raise ConfigError(
            "only fine classes are held out",
            got=", ".join(f"--{name.replace('_', '-')}" for name in given),
            fix="add --fine",
        )
    if args.fine:
        defaults = {"held_out": _HELD_OUT, "novel": _NOVEL, "shots": _SHOTS}
        fine = {name: defaults[name] if fine[name] is None else fine[name] for name in fine}
    counts = (args.train, args.val, args.test, args.test_dev)
    return ToySettings(
        *(*counts, args.seed, scene),
        **(fine if args.fine else {}),
        openimages=args.openimages,
        drop_labels=args.drop_labels,
        drop_far=args.drop_far,
        drop_seed=args.drop_seed,
    )


def _make(args: argparse.Namespace) -> None:
    settings = _settings(args)
    start = time.monotonic()
    made = make_toy_data(
        args.out,
        settings,
        workers=args.workers,
        force=args.force,
        images_from=args.images_from,
    )
    counts = ", ".join(f"{settings.count(split)} {split.name}" for split in settings.splits)
    classes = f"{len(settings.kinds(SPLITS[0]))} classes"
    if settings.held_out:
        classes += f" and {settings.held_out} held out"
    state = f"written in {time.monotonic() - start:.1f} s" if made else "was there already"
    print(f"{args.out}: data set with {counts} images and {classes} {state}")


def _make_faces(args: argparse.Namespace) -> None:
    default = FaceSceneSettings()
    smallest, largest = args.sizes or (default.min_size_px, default.max_size_px)
    scene = FaceSceneSettings(smallest, largest, args.long_side)
    settings = FaceSetSettings(args.train, args.val, args.test, args.seed, scene)
    start = time.monotonic()
    made = make_face_set(args.out, settings, workers=args.workers, force=args.force)
    counts = f"{settings.train} train, {settings.val} val, {settings.test} test"
    state = f"written in {time.monotonic() - start:.1f} s" if made else "was there already"
    print(f"{args.out}: set of faces with {counts} images {state}")


def write_demo_image(path: Path, faces: bool = False) -> None:
    """Writes the picture that the demo uses, 640x480 px and at most 150 kB.

    Args:
        path: file to write.
        faces: the picture for a detector of faces.

    Raises:
        DataError: the file cannot be written.
    """
    rng = np.random.default_rng([_DEMO_SEED, DEMO_SPLIT_NUMBER, _DEMO_INDEX])
    if faces:
        settings = FaceSceneSettings(min_size_px=14)
        image = render_face_scene(rng, settings, CROWD, size=(640, 480)).image
    else:
        shapes = SceneSettings(min_objects=8, max_objects=9)
        image = render_scene(rng, shapes, size=(640, 480)).image
    data = next(
        data
        for data in (encode_jpeg(image, quality) for quality in range(92, 0, -4))
        if len(data) <= _DEMO_BYTES
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise DataError("the demo image cannot be written", where=path, got=error) from error


if __name__ == "__main__":
    sys.exit(main())

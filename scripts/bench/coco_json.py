"""Reading an annotation file of the size of COCO train2017, beside `COCO(file)` of pycocotools.

    python scripts/bench/coco_json.py                      # 118,287 images, 860,001 objects, 435 MB
    python scripts/bench/coco_json.py --share 0.1          # a tenth of both
    python scripts/bench/coco_json.py --folder made        # the file is kept there, and used again

The file is made: boxes, polygons of one to some hundreds of points, and 1.2 % of crowd regions as
run lengths. `boxes` and `masks` parse and check the file; `start` is `load_coco` with masks and a
cache that is empty, which also looks for the images (empty files) and makes the records, and
`again` the same with the cache. Every reading is a process of its own; CPU time is that of the
reading alone, memory the largest resident size of the process (Linux). Exit code: 0 measured, 1 a
reading failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

import numpy as np

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.readings import print_readings

IMAGES, OBJECTS, CLASSES = 118_287, 860_001, 80
CROWDS = 0.012
# Points of a polygon and polygons of an object in COCO: many short ones, few very long ones.
MEAN_LOG_POINTS, SIGMA_LOG_POINTS, MORE_POLYGONS = 2.78, 0.75, 0.09
WIDTH, HEIGHT = 640, 480
_BLOCK = 1000


SET = "made2017"


def main() -> int:
    """Makes the set where it is not there, and reads it in all ways."""
    args = _parser().parse_args()
    if args.read is not None:
        print(json.dumps(_measured(READINGS[args.read], args.folder)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        make_set(folder, args.share)
        for cached in folder.glob("cache/*"):
            cached.unlink()
        place = ["--folder", str(folder)]
        return print_readings(__file__, {name: ["--read", name, *place] for name in READINGS})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="of all images and objects")
    parser.add_argument("--folder", type=Path, help="where the set stays")
    parser.add_argument("--read", choices=READINGS, help=argparse.SUPPRESS)
    return parser


def _annotation_file(folder: Path) -> Path:
    return folder / "annotations" / f"instances_{SET}.json"


def make_set(folder: Path, share: float) -> None:
    """Writes the annotations and empty images, unless they are there."""
    path = _annotation_file(folder)
    if path.exists():
        return
    images = folder / "images" / SET
    images.mkdir(parents=True)
    path.parent.mkdir(exist_ok=True)
    write_annotations(path, max(1, round(IMAGES * share)), max(1, round(OBJECTS * share)))
    for entry in json.loads(path.read_text())["images"]:
        (images / entry["file_name"]).touch()


def _measured(read: Callable[[Path], Any], folder: Path) -> dict[str, float]:
    """Seconds of CPU and of the clock, and MB of memory, after a run that imports what it needs."""
    with tempfile.TemporaryDirectory() as small:
        make_set(Path(small), 0.0)
        read(Path(small))
    cpu, wall = time.process_time(), time.perf_counter()
    result = read(folder)
    seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    del result
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**{name: round(one, 2) for name, one in seconds.items()}, "peak_mb": round(peak)}


def _pycocotools(folder: Path) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(_annotation_file(folder)))


def _parsed(folder: Path, with_masks: bool) -> Any:
    from sniper.data.coco_parse import parse_coco

    return parse_coco(_annotation_file(folder), with_masks=with_masks)


def _loaded(folder: Path) -> Any:
    from sniper.data.coco import load_coco

    return load_coco(folder, SET, with_masks=True, cache_dir=folder / "cache")


READINGS: dict[str, Callable[[Path], Any]] = {
    "pycocotools": _pycocotools,
    "boxes": lambda folder: _parsed(folder, False),
    "masks": lambda folder: _parsed(folder, True),
    "start": _loaded,
    "again": _loaded,
}


def write_annotations(
    path: Union[str, Path], images: int = IMAGES, objects: int = OBJECTS, seed: int = 0
) -> None:
    """Writes an annotation file as COCO writes them: one line, two decimals, polygons and crowds.

    Args:
        path: the file.
        images: of which some have no object.
        objects: of all images.
        seed: the same gives the same bytes.
    """
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(np.arange(1, 5 * images + 1), images, replace=False))
    ids = rng.permutation(ids)
    with open(path, "w", encoding="ascii", newline="\n") as stream:
        stream.write('{"info": {"description": "made", "year": 2017},"licenses": [],"images": [')
        for start in range(0, images, _BLOCK):
            lines = [_image(int(number)) for number in ids[start : start + _BLOCK]]
            stream.write(("," if start else "") + ",".join(lines))
        stream.write('],"annotations": [')
        for start in range(0, objects, _BLOCK):
            count = min(_BLOCK, objects - start)
            lines = _annotations(rng, start + 1, rng.choice(ids, count), count)
            stream.write(("," if start else "") + ",".join(lines))
        names = ",".join(
            f'{{"supercategory": "thing","id": {i},"name": "class {i}"}}'
            for i in range(1, CLASSES + 1)
        )
        stream.write(f'],"categories": [{names}]}}')


def _image(number: int) -> str:
    name = f"{number:012d}.jpg"
    return (
        f'{{"license": 3,"file_name": "{name}",'
        f'"coco_url": "http://images.example.org/train2017/{name}",'
        f'"height": {HEIGHT},"width": {WIDTH},"date_captured": "2013-11-14 11:18:45",'
        f'"flickr_url": "http://farm9.example.org/8186/{number}_c1e2a0c4ae_z.jpg","id": {number}}}'
    )


def _annotations(rng: np.random.Generator, first: int, owners: np.ndarray, count: int) -> list[str]:
    is_crowd = rng.random(count) < CROWDS
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    corner = rng.uniform(0, (WIDTH, HEIGHT), (count, 2)) * (1 - sides / (WIDTH, HEIGHT))
    boxes = np.hstack([corner, sides])
    classes = rng.integers(1, CLASSES + 1, count).tolist()
    polygons = _polygons(rng, boxes)
    return [
        f'{{"segmentation": {_runs(rng) if crowd else polygon},'
        f'"area": {0.6 * box[2] * box[3]:.12g},'
        f'"iscrowd": {int(crowd)},"image_id": {owner},'
        f'"bbox": [{box[0]:.2f},{box[1]:.2f},{box[2]:.2f},{box[3]:.2f}],'
        f'"category_id": {klass},"id": {number}}}'
        for number, (crowd, polygon, box, owner, klass) in enumerate(
            zip(is_crowd.tolist(), polygons, boxes.tolist(), owners.tolist(), classes), first
        )
    ]


def _polygons(rng: np.random.Generator, boxes: np.ndarray) -> list[str]:
    """The `segmentation` of each of (n, 4) boxes x, y, width, height."""
    rings = rng.geometric(1 - MORE_POLYGONS, len(boxes))
    points = rng.lognormal(MEAN_LOG_POINTS, SIGMA_LOG_POINTS, rings.sum()).astype(np.int64)
    points = np.maximum(points, 3)
    ends = np.cumsum(points)
    place = np.arange(ends[-1]) - np.repeat(ends - points, points)
    angles = 2 * np.pi * place / np.repeat(points, points)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    owner = np.repeat(np.repeat(np.arange(len(boxes)), rings), points)
    reach = 0.5 + rng.uniform(0.3, 0.5, (len(place), 1)) * circle
    numbers = (boxes[owner, :2] + boxes[owner, 2:] * reach).round(2).ravel().tolist()
    texts = list(map(repr, numbers))
    starts = [0, *(2 * ends).tolist()]
    of_rings = [f"[{','.join(texts[a:b])}]" for a, b in zip(starts, starts[1:])]
    last = [0, *np.cumsum(rings).tolist()]
    return [f"[{','.join(of_rings[a:b])}]" for a, b in zip(last, last[1:])]


def _runs(rng: np.random.Generator) -> str:
    """Uncompressed run lengths of the whole image."""
    ends = np.unique(rng.integers(1, WIDTH * HEIGHT, int(rng.integers(100, 700))))
    counts = np.diff([0, *ends.tolist(), WIDTH * HEIGHT]).tolist()
    return f'{{"counts": [{",".join(map(str, counts))}],"size": [{HEIGHT},{WIDTH}]}}'


if __name__ == "__main__":
    sys.exit(main())

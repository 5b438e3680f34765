"""A data format and a protocol of evaluation of your own, without a change in the package.

A program that imports this module has `dataset.dataset: csv` for training, testing and
`sniper check-data`. Programs that you did not write find it through an installed package:

    [project.entry-points."sniper.datasets"]
    csv = "own_format:load_csv"
    [project.entry-points."sniper.protocols"]
    strict = "own_format:Strict"

The format: `<set>.csv` with lines `image,width,height,class,x1,y1,x2,y2`, one for each object, and
one without class and box for an image without objects.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sniper.data import BACKGROUND, FROM_RECORDS, Dataset, Record, register_format
from sniper.data.ids import stable_ids
from sniper.data.problems import BROKEN_ENTRY, OnProblem, Problem, stop_at_errors
from sniper.errors import DataError
from sniper.evaluation import register_protocol
from sniper.evaluation.coco_protocol import CocoProtocol

Row = tuple[str, float, float, float, float]  # class x1 y1 x2 y2


def load_csv(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads `<dataset_path>/<set>.csv`, which has no masks and needs no cache.

    Training stops at the first problem; `sniper check-data` passes an `on_problem` that counts.

    Raises:
        DataError: there is no such file; by default also for a broken line.
    """
    path = Path(dataset_path) / f"{image_set}.csv"
    if not path.is_file():
        raise DataError("there is no list", where=path)
    sizes: dict[str, tuple[int, int]] = {}
    rows: dict[str, list[Row]] = {}
    for number, line in enumerate(csv.reader(path.read_text().splitlines()), start=1):
        try:
            image, width, height, name, *corners = line
            sizes[image] = int(width), int(height)
            if name:
                x1, y1, x2, y2 = map(float, corners)
                rows.setdefault(image, []).append((name, x1, y1, x2, y2))
        except ValueError as problem:
            error = DataError("a line is broken", where=path, got=line)
            examples = [f"line {number}: {problem}"]
            on_problem(Problem(BROKEN_ENTRY, path.name, 1, examples, error))
    names = {name for of_image in rows.values() for name, *_ in of_image}
    classes = (BACKGROUND, *sorted(names))
    # Numbers made of the names: they stay when images come and go.
    ids = stable_ids(list(sizes)).tolist()
    return Dataset(
        name=f"CSV_{image_set}",
        image_set=image_set,
        class_names=classes,
        category_ids=tuple(range(len(classes))),
        records=tuple(
            _record(path.with_name(image), image_id, size, rows.get(image, []), classes)
            for image_id, (image, size) in zip(ids, sizes.items())
        ),
        annotation_path=str(path),
        has_annotations=True,
        truth=FROM_RECORDS,  # evaluated like COCO, with these very boxes
    )


def _record(
    path: Path, image_id: int, size: tuple[int, int], rows: list[Row], classes: tuple[str, ...]
) -> Record:
    return Record(
        image_path=str(path),
        image_id=image_id,
        width=size[0],
        height=size[1],
        flipped=False,
        boxes=np.array([box for _, *box in rows], np.float32).reshape(-1, 4),
        classes=np.array([classes.index(name) for name, *_ in rows], np.int32),
        is_gt=np.ones(len(rows), bool),
    )


class Strict(CocoProtocol):
    """COCO's numbers, but AP at IoU 0.75 chooses the best weights. A set names it as `protocol`."""

    headline = ("ap75", "ap")


register_format("csv", load_csv)
register_protocol("strict", Strict)

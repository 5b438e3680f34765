"""Data sets in the layout of Pascal VOC: `VOC<year>/{ImageSets/Main,JPEGImages,Annotations}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data import account
from sniper.data.account import Intake
from sniper.data.box_problems import (
    AnnotatedBoxes,
    report_boxes,
    report_fractions,
    report_repeated,
)
from sniper.data.cache import cache_file, cached_arrays
from sniper.data.dataset import Dataset
from sniper.data.listed_images import (
    complete_sizes,
    find_listed_annotations,
    find_listed_images,
)
from sniper.data.orientation import AUTO
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.data.record import Record
from sniper.data.voc_annotation import (
    TABLE_FIELDS,
    VocTable,
    annotations_sha256,
    empty_table,
    read_table,
)
from sniper.data.voc_layout import VocLayout, parse_set, read_image_list, voc_image_ids
from sniper.errors import DataError

logger = logging.getLogger(__name__)

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 1

USUAL_ENDING = ".jpg"

# The area under the curve replaced the mean of 11 points in 2010.
_FIRST_YEAR_OF_AREA = 2010


@dataclass(frozen=True, eq=False)
class VocTruth:
    """What the evaluation of a Pascal VOC set needs beside the records.

    Attributes:
        year: `2007`, `2012`, ... or the word that an own set has in its place.
        subset: `test`, `val`, ...
        image_names: image id -> name of the image in lists and result files.
        image_ids: (N,) int64, the image of each object.
        boxes: (N, 4) float32 as annotated, counted from 0, difficult objects included.
        classes: (N,) int32.
        difficult: (N,) bool.
    """

    year: str
    subset: str
    image_names: Mapping[int, str]
    image_ids: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray

    @property
    def eleven_points(self) -> bool:
        """Whether average precision is the mean of 11 points (years before 2010)."""
        # SDS: VOC images with other annotations, counted with 11 points in 2018.
        return self.year == "SDS" or (
            self.year.isdecimal() and int(self.year) < _FIRST_YEAR_OF_AREA
        )


def load_voc(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    legacy_boxes: bool = False,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads `<dataset_path>/VOC<year>/ImageSets/Main/<set>.txt` and what it lists.

    Objects flagged difficult are no ground truth for training; the evaluation knows them. The 20
    classes of VOC are assumed unless `classes.txt` stands in the year's folder or above it. Images
    are looked up, not opened, unless their annotations lack the size.

    Args:
        dataset_path: the folder that holds `VOC<year>`.
        image_set: `<year>_<set>`, e.g. `2007_trainval`; `07_trainval` is the same. Own sets in this
            layout take any word as their year: `Mine_train` lives in `VOCMine`.
        with_masks: refused, since the layout has no polygons.
        legacy_boxes: corners are truncated to whole px, as in 2018.
        exif: `dataset.EXIF`, for sizes that come from the images.
        cache_dir: where parsed annotations are kept, keyed by their content; None for no cache.
        on_problem: gets every problem; when it comes back, an image with a broken annotation has
            no objects, and one without any size is left out.

    Raises:
        DataError: there is no list, or masks are asked for; by default also for everything that is
            missing or broken.
    """
    year, subset = parse_set(image_set)
    layout = VocLayout(Path(dataset_path) / f"VOC{year}", year, subset)
    if with_masks:
        raise DataError(
            f"{layout.name} has no masks: Pascal VOC annotations hold boxes only",
            where=layout.root,
            fix="--set TRAIN.WITH_MASK False, with a symbol without mask head",
        )
    names = read_image_list(layout.list_path, on_problem)
    class_names = layout.class_names()
    annotations = _annotations(layout, names, on_problem)
    table = _table(layout, names, annotations, class_names, cache_dir, on_problem)
    folder = layout.root / "JPEGImages"
    paths = find_listed_images(folder, names, USUAL_ENDING, layout.name, on_problem)
    annotated = np.stack([table.widths, table.heights], axis=1)
    sizes = complete_sizes(annotated, paths, layout.name, on_problem, exif)
    records, intake = _records(table, names, paths, sizes, layout, on_problem, legacy_boxes)
    dataset = _dataset(layout, names, class_names, table, records, intake, bool(annotations))
    logger.info(
        "%s: %d images, %d objects, %d difficult ones, %d classes",
        *(layout.name, len(names), len(table.boxes), dataset.num_ignored, len(class_names) - 1),
    )
    return dataset


def read_voc_truth(list_path: str | Path) -> Dataset:
    """A set for evaluation, by its list `VOC<year>/ImageSets/Main/<set>.txt`: without its images.

    Raises:
        DataError: the list or annotations are missing or broken.
    """
    path = Path(list_path)
    if len(path.resolve().parents) < len(("Main", "ImageSets", "VOC<year>")):
        raise DataError("this is no list of a Pascal VOC set", where=path)
    root = path.resolve().parents[2]
    layout = VocLayout(root, root.name[3:] if root.name.startswith("VOC") else root.name, path.stem)
    names, class_names = read_image_list(path), layout.class_names()
    annotations = _annotations(layout, names, stop_at_errors)
    table = _table(layout, names, annotations, class_names, None, stop_at_errors)
    # The metrics ask for no size: where there is none, that of what is annotated serves.
    ends = np.zeros((len(names), 2), np.int64)
    owners = np.repeat(np.arange(len(names)), np.diff(table.offsets))
    np.maximum.at(ends, owners, np.ceil(table.boxes[:, 2:]).astype(np.int64) + 1)
    sizes = np.maximum(np.stack([table.widths, table.heights], axis=1), np.maximum(ends, 1))
    records, intake = _records(table, names, names, sizes, layout, stop_at_errors)
    return _dataset(layout, names, class_names, table, records, intake, bool(annotations))


def _annotations(layout: VocLayout, names: tuple[str, ...], on_problem: OnProblem) -> list[str]:
    folder = layout.root / "Annotations"
    return find_listed_annotations(folder, names, ".xml", layout.name, layout.list_path, on_problem)


def _table(
    layout: VocLayout,
    names: tuple[str, ...],
    annotations: list[str],
    class_names: tuple[str, ...],
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> VocTable:
    if not annotations:
        return empty_table(len(names))
    class_index = {name.lower(): index for index, name in enumerate(class_names) if index}
    if cache_dir is None:
        return read_table(annotations, class_index, on_problem)
    key = {
        "annotation files": annotations_sha256(names, annotations),
        "list of classes": ", ".join(class_names[1:]),
        "format version": str(CACHE_FORMAT),
    }
    path = cache_file(cache_dir, layout.name, layout.list_path)
    arrays = cached_arrays(
        path, key, TABLE_FIELDS, lambda: vars(read_table(annotations, class_index))
    )
    return VocTable(**arrays)


def _dataset(
    layout: VocLayout,
    names: tuple[str, ...],
    class_names: tuple[str, ...],
    table: VocTable,
    records: tuple[Record, ...],
    intake: Intake,
    has_annotations: bool,
) -> Dataset:
    image_ids = voc_image_ids(names)
    found = ~table.inverted  # no detection overlaps the others
    truth = VocTruth(
        year=layout.year,
        subset=layout.subset,
        image_names=dict(zip(image_ids.tolist(), names)),
        image_ids=np.repeat(image_ids, np.diff(table.offsets))[found],
        boxes=table.boxes[found],
        classes=table.classes[found],
        difficult=table.difficult[found],
    )
    return Dataset(
        name=layout.name,
        image_set=f"{layout.year}_{layout.subset}",
        class_names=class_names,
        category_ids=tuple(range(len(class_names))),
        records=records,
        annotation_path=str(layout.root / "Annotations"),
        has_annotations=has_annotations,
        truth=truth,
        protocol="voc",
        num_ignored=int(np.count_nonzero(table.difficult)),
        intake=intake,
        legacy_file_order=True,
    )


def _records(
    table: VocTable,
    names: tuple[str, ...],
    paths: Sequence[str],
    sizes: np.ndarray,
    layout: VocLayout,
    on_problem: OnProblem,
    legacy_boxes: bool = False,
) -> tuple[tuple[Record, ...], Intake]:
    """The records of all images that have a size, and the account of all annotations."""
    image_of_box = np.repeat(np.arange(len(paths)), np.diff(table.offsets))
    limits = np.tile(sizes, 2)[image_of_box] - 1
    # Clipped at 0, which 2018 left out: its boxes wrapped to 65535.
    boxes = np.clip(table.boxes, 0, None).astype(np.float32)
    if legacy_boxes:
        boxes = np.trunc(boxes)
    cut = np.minimum(boxes, limits).astype(np.float32)
    starts_inside = (boxes[:, :2] < limits[:, :2] + 1).all(axis=1)
    inside = starts_inside & (table.boxes[:, 2:] >= -1).all(axis=1) & ~table.inverted
    sized = sizes[image_of_box, 0] > 0
    images = (names, sizes, image_of_box)
    intake = _report_boxes(table, images, (cut, inside), layout, on_problem, legacy_boxes)
    kept = np.flatnonzero(inside & ~table.difficult & sized)
    counts = np.bincount(image_of_box[kept], minlength=len(paths))
    ends = np.cumsum(counts).tolist()
    boxes, classes, is_gt = cut[kept], table.classes[kept], np.ones(len(kept), np.bool_)
    records = tuple(
        Record(
            image_path=path,
            image_id=image_id,
            width=width,
            height=height,
            flipped=False,
            boxes=boxes[end - count : end],
            classes=classes[end - count : end],
            is_gt=is_gt[end - count : end],
        )
        for path, image_id, (width, height), count, end in zip(
            paths, voc_image_ids(names).tolist(), sizes.tolist(), counts.tolist(), ends
        )
        if width
    )
    return records, intake


def _report_boxes(
    table: VocTable,
    images: tuple[tuple[str, ...], np.ndarray, np.ndarray],
    read: tuple[np.ndarray, np.ndarray],
    layout: VocLayout,
    on_problem: OnProblem,
    legacy_boxes: bool,
) -> Intake:
    """Warns of boxes that are left out or cut; the account of all.

    Args:
        table: all boxes.
        images: their names, (n, 2) sizes, and the image of each box.
        read: boxes as read, and which lie inside.
        layout: of the set.
        on_problem: is told.
        legacy_boxes: they were read as in 2018.
    """
    names, sizes, image_of_box = images
    is_sized = sizes[image_of_box, 0] > 0
    chosen = np.flatnonzero(is_sized & ~table.difficult)

    def label(number: int) -> str:
        row = int(chosen[number])
        image = int(image_of_box[row])
        return f"{names[image]}, object {row - int(table.offsets[image]) + 1}"

    x1, y1, x2, y2 = table.boxes[chosen].astype(np.float64).T
    # Inclusive corners: a box of one px has equal ones.
    x2, y2 = np.where(x2 < x1, x2, x2 + 1), np.where(y2 < y1, y2, y2 + 1)
    widths, heights = sizes[image_of_box[chosen]].T
    boxes = AnnotatedBoxes(
        corners=(x1, y1, x2, y2),
        areas=(x2 - x1) * (y2 - y1),
        widths=widths,
        heights=heights,
        kept=read[1][chosen],
        read=read[0][chosen],
        label=label,
        legacy=legacy_boxes,
        counts_from=1,
    )
    counts = report_boxes(boxes, layout.name, on_problem)
    report_fractions(boxes, layout.name, layout.root / "Annotations", on_problem)
    owners = np.column_stack([image_of_box[chosen], table.classes[chosen]])
    repeated = report_repeated(boxes, owners, layout.name, on_problem)
    return Intake(
        read=len(table.boxes),
        left_out={
            account.BROKEN.name: int(np.count_nonzero(~is_sized)),
            account.DIFFICULT.name: int(np.count_nonzero(is_sized & table.difficult)),
            **counts.left_out,
        },
        remarks={account.REPEATED.name: repeated, **counts.remarks},
    )

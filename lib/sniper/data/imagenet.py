"""Data sets in the layout of ImageNet: folders of images and of XML, thousands of classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sniper.data import account
from sniper.data.account import Intake
from sniper.data.box_problems import AnnotatedBoxes, report_boxes, report_repeated
from sniper.data.cache import cache_file, cached_arrays
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ilsvrc import IlsvrcTruth
from sniper.data.ilsvrc_set import VAL, det_truth
from sniper.data.imagenet_annotation import TABLE_FIELDS, ImagenetTable, read_imagenet_table
from sniper.data.imagenet_layout import (
    BBOX,
    ImageList,
    ImagenetLayout,
    ImagesByName,
    annotation_paths,
    layout_of,
    layout_of_annotations,
    list_images,
)
from sniper.data.imagenet_tables import class_names, det_places, listed_classes, open_folder
from sniper.data.listed_images import complete_sizes, find_listed_images, missing_error
from sniper.data.orientation import AUTO
from sniper.data.problems import (
    BROKEN_ENTRY,
    UNKNOWN_NAME,
    OnProblem,
    Problem,
    stop_at_errors,
)
from sniper.data.record import Record
from sniper.data.voc_annotation import annotations_sha256, read_xml_bytes
from sniper.data.wordnet import WNID
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 1
USUAL_ENDING = ".JPEG"
# Boxes with a larger coordinate were taken for errors in 2018.
_MOST_PX_2018 = 4000


def load_imagenet(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    legacy_boxes: bool = False,
    annotation_file: str | None = None,
    image_folder: str | None = None,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads a folder of images `<set>` and one of annotation files `<set>_bbox`.

    These are enough: all annotated images are the set, all names in its annotations, sorted, are
    the classes. A list `<set>.txt` (in `lists`, in the root, or in the development kit; that of
    2018 for `fall11_whole` and `ILSVRC2013_DET_val`) chooses and orders images; `classes.txt` or
    the clusters of 2018 choose and order classes. Category ids are the names in the annotations.
    Boxes are counted from 0, as ImageNet has them. With a development kit, its validation images
    are evaluated on the 200 DET classes, other sets on their own classes.

    Args:
        dataset_path: the ImageNet folder.
        image_set: the set's name.
        with_masks: refused, since the layout has no outlines.
        legacy_boxes: the rules of 2018: boxes that reach beyond their image, have a coordinate
            above 4000 or no extent, and names that are no WordNet ids, are left out; result files
            count px from 1.
        annotation_file: another folder of the annotation files, with `{set}` for the set's name;
            relative to `dataset_path`.
        image_folder: another folder of the images, the same way. Images that are not where their
            annotations are, are found by their names below it.
        exif: `dataset.EXIF`, for sizes that the annotations lack.
        cache_dir: where parsed annotations are kept, keyed by their content; None for no cache.
        on_problem: gets every problem; when it comes back, an image with a broken annotation has
            no objects, and one without any size is left out.

    Raises:
        DataError: there is no such set, or masks are asked for; by default also for everything
            that is missing or broken.
    """
    if with_masks:
        raise DataError(
            "ImageNet has no masks: its annotations hold boxes only",
            where=dataset_path,
            fix="--set TRAIN.WITH_MASK False, with a symbol without mask head",
        )
    folder = open_folder(Path(dataset_path))
    layout = layout_of(folder, image_set, annotation_file, image_folder)
    images = _with_numbers(layout, list_images(layout, on_problem))
    annotations = _find_annotations(layout, images, on_problem)
    table = _table(layout, images, annotations, cache_dir, on_problem)
    paths = find_listed_images(
        *(layout.images, images.keys, USUAL_ENDING, layout.name, on_problem),
        elsewhere=ImagesByName(layout.images),
    )
    sizes = complete_sizes(table.sizes, paths, layout.name, on_problem, exif)
    dataset = _dataset(
        *(layout, images, table, paths, sizes, on_problem),
        has_annotations=any(annotations),
        legacy_boxes=legacy_boxes,
    )
    logger.info(
        "%s: %d images, %d objects, %d classes (by %s)",
        *(layout.name, len(dataset.records), dataset.num_objects),
        *(len(dataset.class_names) - 1, images.source),
    )
    return dataset


def read_imagenet_truth(dataset_path: Path, image_set: str | None) -> Dataset:
    """The annotations of a set for evaluation: images are neither looked up nor opened.

    Args:
        dataset_path: the ImageNet folder.
        image_set: the set's name; None where the folder has one set only.

    Raises:
        ConfigError: the set must be named.
        DataError: there is no such set, or annotations are missing or broken.
    """
    folder = open_folder(dataset_path)
    sets = sorted(p.name[: -len(BBOX)] for p in dataset_path.glob(f"*{BBOX}") if p.is_dir())
    if image_set is None and len(sets) != 1:
        raise ConfigError(
            "which set was detected on?",
            where=dataset_path,
            got=f"sets: {', '.join(sets) or 'none'}",
            expected=f"the development kit of ILSVRC DET, or a set with a folder <set>{BBOX}",
            fix="name the set: --image_set NAME",
        )
    layout = layout_of_annotations(folder, image_set or sets[0])
    images = _with_numbers(layout, list_images(layout, stop_at_errors))
    annotations = _find_annotations(layout, images, stop_at_errors)
    table = _table(layout, images, annotations, None, stop_at_errors)
    return _dataset(
        *(layout, images, table, images.keys, table.least_sizes, stop_at_errors),
        has_annotations=any(annotations),
        legacy_boxes=False,
    )


def _dataset(
    layout: ImagenetLayout,
    images: ImageList,
    table: ImagenetTable,
    paths: Sequence[str],
    sizes: np.ndarray,
    on_problem: OnProblem,
    *,
    has_annotations: bool,
    legacy_boxes: bool,
) -> Dataset:
    listed = listed_classes(layout.folder)
    names = _names_of(layout, table, legacy_boxes) if listed is None else listed[0]
    classes = table.class_of_box({name: index for index, name in enumerate(names, start=1)})
    records, intake = _records(
        layout, images, table, classes, paths, sizes, on_problem, legacy_boxes=legacy_boxes
    )
    readable = class_names(layout.folder, names, is_complete=listed is not None)
    return Dataset(
        name=layout.name,
        image_set=layout.image_set,
        class_names=readable,
        category_ids=(0, *names),
        records=records,
        annotation_path=str(layout.annotations),
        has_annotations=has_annotations,
        truth=_truth(layout, images, table, classes, names, readable, int(legacy_boxes)),
        protocol="ilsvrc",
        intake=intake,
    )


def _with_numbers(layout: ImagenetLayout, images: ImageList) -> ImageList:
    """Validation images of the challenge have the numbers of its result files, in any list."""
    kit = layout.folder.kit
    if kit is None or not kit.list_path(VAL).is_file():
        return images
    numbers = kit.read_list(VAL)
    if not numbers.keys() >= set(images.keys):
        return images
    ids = np.array([numbers[key] for key in images.keys], np.int64)
    listed = np.array(sorted(numbers.values()), np.int64)
    return replace(images, ids=ids, is_numbered=True, det_numbers=listed)


def _find_annotations(
    layout: ImagenetLayout, images: ImageList, on_problem: OnProblem
) -> list[str]:
    """The annotation file of every image ("" for none)."""
    paths = annotation_paths(layout, images.keys)
    missing = [key for key, path in zip(images.keys, paths) if not path]
    if missing and len(missing) < len(paths):
        names = [str(layout.annotations / f"{key}.xml") for key in missing]
        texts = [f"there is no {name}" for name in names]
        error = missing_error(names, len(paths), "annotation files", images.source)
        on_problem(Problem(BROKEN_ENTRY, layout.name, len(missing), texts, error))
    return paths


def _table(
    layout: ImagenetLayout,
    images: ImageList,
    annotations: list[str],
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> ImagenetTable:
    def read(hear: OnProblem) -> ImagenetTable:
        contents = ((path, read_xml_bytes(path) if path else b"") for path in annotations)
        return read_imagenet_table(contents, len(annotations), hear)

    if cache_dir is None or not all(annotations):
        return read(on_problem)
    key = {
        "annotation files": annotations_sha256(images.keys, annotations),
        "format version": str(CACHE_FORMAT),
    }
    path = cache_file(cache_dir, layout.name, layout.annotations)
    arrays = cached_arrays(path, key, TABLE_FIELDS, lambda: vars(read(stop_at_errors)))
    return ImagenetTable(**arrays)


def _names_of(layout: ImagenetLayout, table: ImagenetTable, legacy: bool) -> tuple[str, ...]:
    """Names of the objects, sorted."""
    names = [name for name in table.names.tolist() if not legacy or WNID.fullmatch(name)]
    if BACKGROUND in names:
        raise DataError(
            "an object has the name of the background", where=layout.annotations, got=BACKGROUND
        )
    return tuple(names)


def _records(
    layout: ImagenetLayout,
    images: ImageList,
    table: ImagenetTable,
    classes: np.ndarray,
    paths: Sequence[str],
    sizes: np.ndarray,
    on_problem: OnProblem,
    *,
    legacy_boxes: bool,
) -> tuple[tuple[Record, ...], Intake]:
    """The records of all images that have a size, and the account of all annotations."""
    image_of_box = table.image_of_box
    of_image = sizes[image_of_box]
    boxes = np.trunc(table.boxes) if legacy_boxes else table.boxes
    limits = np.tile(of_image, 2) - 1
    cut = np.clip(boxes, 0, np.maximum(limits, 0)).astype(np.float32)
    if legacy_boxes:
        inside = (boxes[:, 2:] <= of_image).all(axis=1) & (boxes <= _MOST_PX_2018).all(axis=1)
        inside &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    else:
        inside = (boxes[:, :2] < of_image).all(axis=1) & (boxes[:, 2:] > -1).all(axis=1)
        inside &= ~table.inverted
    usable = (classes > 0) & (of_image[:, 0] > 0)
    read = (cut, inside, of_image)
    intake = _report(layout, images, table, classes, read, on_problem, legacy_boxes)
    kept = np.flatnonzero(inside & usable)
    counts = np.bincount(image_of_box[kept], minlength=len(paths))
    ends = np.cumsum(counts).tolist()
    is_gt = np.ones(len(kept), np.bool_)
    boxes, classes = cut[kept], classes[kept]
    records = tuple(
        Record(
            image_path=path,
            image_id=image_id,
            file_id=None if images.is_numbered else key,
            width=width,
            height=height,
            flipped=False,
            boxes=boxes[end - count : end],
            classes=classes[end - count : end],
            is_gt=is_gt[end - count : end],
        )
        for key, path, image_id, (width, height), count, end in zip(
            *(images.keys, paths, images.ids.tolist(), sizes.tolist(), counts.tolist(), ends)
        )
        if width
    )
    return records, intake


def _report(
    layout: ImagenetLayout,
    images: ImageList,
    table: ImagenetTable,
    classes: np.ndarray,
    read: tuple[np.ndarray, np.ndarray, np.ndarray],
    on_problem: OnProblem,
    legacy: bool,
) -> Intake:
    """Warns of boxes that are left out or cut; the account of all.

    Args:
        layout: of the set.
        images: of the set.
        table: all boxes.
        classes: of each box.
        read: boxes as read, which are kept, and (N, 2) sizes of their images.
        on_problem: is told.
        legacy: they were read by the rules of 2018.
    """
    cut, inside, sizes = read
    has_size, listed = sizes[:, 0] > 0, classes > 0
    image_of_box = table.image_of_box

    def label(row: int) -> str:
        image = int(image_of_box[row])
        return f"{images.keys[image]}, object {row - int(table.offsets[image]) + 1}"

    foreign = np.flatnonzero(has_size & ~listed)
    if len(foreign):
        texts = (f"{label(row)}: {table.names[table.name_of[row]]}" for row in foreign.tolist())
        on_problem(Problem(UNKNOWN_NAME, layout.name, len(foreign), texts))
    chosen = np.flatnonzero(has_size & listed)
    x1, y1, x2, y2 = table.boxes[chosen].astype(np.float64).T
    # Inclusive corners: a box of one px has equal ones, and in 2018 no extent.
    least = 1 if legacy else 0
    x2, y2 = np.where(x2 < x1 + least, x2, x2 + 1), np.where(y2 < y1 + least, y2, y2 + 1)
    boxes = AnnotatedBoxes(
        corners=(x1, y1, x2, y2),
        areas=(x2 - x1) * (y2 - y1),
        widths=sizes[chosen, 0],
        heights=sizes[chosen, 1],
        kept=inside[chosen],
        read=cut[chosen],
        label=lambda number: label(int(chosen[number])),
    )
    counts = report_boxes(boxes, layout.name, on_problem)
    owners = np.column_stack([image_of_box[chosen], classes[chosen]])
    repeated = report_repeated(boxes, owners, layout.name, on_problem)
    return Intake(
        read=len(table.boxes),
        left_out={
            account.BROKEN.name: int(np.count_nonzero(~has_size)),
            account.UNLISTED.name: len(foreign),
            **counts.left_out,
        },
        remarks={account.REPEATED.name: repeated, **counts.remarks},
    )


def _truth(
    layout: ImagenetLayout,
    images: ImageList,
    table: ImagenetTable,
    classes: np.ndarray,
    names: tuple[str, ...],
    readable: tuple[str, ...],
    first_px: int,
) -> IlsvrcTruth:
    """What the set is evaluated on: DET classes for validation images of the kit, else its own."""
    kit = layout.folder.kit
    if kit is not None and images.det_numbers is not None:
        places = det_places(layout.folder, kit, names)
        return det_truth(kit, table, images.ids, images.det_numbers, places, first_px)
    counted = (classes > 0) & ~table.inverted  # no detection overlaps the others
    return IlsvrcTruth(
        class_names=readable[1:],
        class_numbers=np.arange(1, len(names) + 1),
        evaluated_as=np.arange(len(names) + 1, dtype=np.int32),
        listed=np.sort(images.ids),
        image_ids=images.ids[table.image_of_box[counted]],
        classes=classes[counted],
        boxes=table.boxes[counted].astype(np.float64),
        first_px=first_px,
    )

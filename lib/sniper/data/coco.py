"""Data sets in COCO format: any file names, any category ids, any number of classes."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sniper.data.account import NO_MASK, Intake, intake_of_array
from sniper.data.cache import cache_file, cached_arrays, file_sha256
from sniper.data.coco_parse import TABLE_FIELDS, CocoTable, parse_coco
from sniper.data.collector import collector_off
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ids import packed_numbers, unpack_ids
from sniper.data.image_paths import ImagePlaces, find_images
from sniper.data.polygon_table import PolygonTable
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.data.record import Record, Rows, records_of_arrays
from sniper.errors import DataError

logger = logging.getLogger(__name__)

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 4

_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FOLDER_OF_SET = dict.fromkeys(("minival2014", "sminival2014", "valminusminival2014"), "val2014")


def load_coco(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    legacy_boxes: bool = False,
    annotation_file: str | None = None,
    image_folder: str | None = None,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads `<dataset_path>/annotations/instances_<set>.json` or `image_info_<set>.json`.

    Crowd regions are kept apart: they are no ground truth (2018 behaviour). Images are looked up,
    not opened.

    Args:
        dataset_path: folder with `annotations` and `images`.
        image_set: the set's name, e.g. `train2017`.
        with_masks: also read the polygons.
        legacy_boxes: boxes by the rules of 2018 (`sniper.data.coco_objects.convert_boxes`).
        annotation_file: another file, with `{set}` for the set's name; relative to `dataset_path`.
        image_folder: another folder of the images, the same way.
        cache_dir: where parsed annotations are kept, keyed by their content; None for no cache. A
            cache tells no warnings.
        on_problem: gets every problem; when it comes back, the broken entry is left out.

    Raises:
        DataError: there are no usable annotations; by default also for everything that is missing
            or broken.
    """
    root = Path(dataset_path)
    annotation_path = find_annotations(root, image_set, annotation_file)
    name = f"COCO_{image_set}"
    table = _table(annotation_path, name, with_masks, legacy_boxes, cache_dir, on_problem)
    places = image_places(root, image_set, image_folder)
    with collector_off():
        images = list(zip(unpack_ids(table.image_ids), table.file_names.tolist()))
        paths = find_images(places, images, name, annotation_path, on_problem)
        del images
        dataset = dataset_of_table(name, image_set, table, paths, annotation_path, with_masks)
    logger.info(
        "%s: %d images, %d objects, %d crowd regions, %d classes",
        *(name, len(paths), len(table.boxes), len(table.crowd_boxes), len(table.class_names)),
    )
    return dataset


def read_coco_truth(annotation_path: str | Path) -> Dataset:
    """A set of an annotation file alone, for evaluation: the images are not looked up.

    The set is named as the file is, without `instances_` or `image_info_`.

    Raises:
        DataError: the file or an entry is broken.
    """
    path = Path(annotation_path)
    table = parse_coco(path, with_masks=False)
    image_set = re.sub(r"^(instances|image_info)_", "", path.stem)
    names = table.file_names.tolist()
    return dataset_of_table(f"COCO_{image_set}", image_set, table, names, path, False)


def dataset_of_table(
    name: str,
    image_set: str,
    table: CocoTable,
    paths: list[str],
    annotation_path: Path,
    with_masks: bool,
) -> Dataset:
    """The set of a table.

    Args:
        name: of the set, for files.
        image_set: its name in recipes.
        table: its annotations.
        paths: of the images, in the order of the table.
        annotation_path: the file.
        with_masks: the table has polygons.
    """
    return Dataset(
        name=name,
        image_set=image_set,
        class_names=(BACKGROUND, *table.class_names.tolist()),
        category_ids=(0, *unpack_ids(table.category_ids)),
        records=_records(table, paths, with_masks),
        annotation_path=str(annotation_path),
        has_annotations=bool(table.has_annotations),
        num_ignored=len(table.crowd_boxes),
        intake=_intake(table, with_masks),
    )


def _intake(table: CocoTable, with_masks: bool) -> Intake:
    intake = intake_of_array(table.intake)
    if with_masks:
        return intake
    # A cache with masks serves as well, but nobody asked for them.
    return replace(intake, remarks={**intake.remarks, NO_MASK.name: 0})


def find_annotations(root: Path, image_set: str, annotation_file: str | None = None) -> Path:
    """The annotation file of a set.

    Args:
        root: `dataset.dataset_path`.
        image_set: the set's name.
        annotation_file: `dataset.annotation_file`, with `{set}` for the set's name.

    Raises:
        DataError: the set's name is no file name, or the set has no annotation file.
    """
    if not _SET_NAME.fullmatch(image_set):
        raise DataError(
            "a set's name may hold letters, digits, '_', '-' and '.' only",
            where="dataset.image_set or dataset.test_image_set",
            got=repr(image_set),
        )
    candidates = [
        root / "annotations" / f"{kind}_{image_set}.json{packed}"
        for packed in ("", ".gz")
        for kind in ("instances", "image_info")
    ]
    if annotation_file:
        candidates = [root / annotation_file.replace("{set}", image_set)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"the set {image_set!r} has no annotation file",
        where=root,
        expected=" or ".join(map(str, candidates)),
        fix="check dataset.dataset_path and the set's name, or name the file with "
        "dataset.annotation_file",
    )


def folder_of_set(image_set: str) -> str:
    """The folder of a set's images: 2014 subsets live in val2014, test-dev sets in test<year>."""
    test_dev = re.fullmatch(r"test-dev(\d{4})", image_set)
    return f"test{test_dev[1]}" if test_dev else _FOLDER_OF_SET.get(image_set, image_set)


def image_places(root: Path, image_set: str, image_folder: str | None = None) -> ImagePlaces:
    """Where the images of a set may be: in the named folder, or in the usual ones.

    Args:
        root: `dataset.dataset_path`.
        image_set: the set's name.
        image_folder: `dataset.image_folder`, with `{set}` for the set's name; relative to `root`.
    """
    folder = folder_of_set(image_set)
    if image_folder:
        folders = [os.path.join(root, image_folder.replace("{set}", image_set))]
    else:
        folders = [os.path.join(root, *parts) for parts in (("images", folder), (folder,))]
        folders += [os.path.join(root, "images"), str(root)]
    return ImagePlaces(tuple(folders), f"COCO_{folder}_{{}}.jpg")


def _table(
    annotation_path: Path,
    name: str,
    with_masks: bool,
    legacy_boxes: bool,
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> CocoTable:
    parse = partial(parse_coco, annotation_path, with_masks=with_masks, legacy_boxes=legacy_boxes)
    if cache_dir is None:
        return parse(on_problem=on_problem)
    key = {
        "annotation file": file_sha256(annotation_path),
        "masks switch": str(with_masks),
        "TRAIN.LEGACY_BOXES": str(legacy_boxes),
        "format version": str(CACHE_FORMAT),
    }
    arrays = cached_arrays(
        cache_file(cache_dir, name, annotation_path),
        key,
        TABLE_FIELDS,
        # What is kept has no errors, whoever wants to hear of them.
        lambda: vars(parse()),
        # Polygons that nobody asked for do no harm.
        also_good={"masks switch": str(True)},
    )
    return CocoTable(**arrays)


def _records(table: CocoTable, paths: list[str], with_masks: bool) -> tuple[Record, ...]:
    polygons = None
    if with_masks:
        outlines = PolygonTable(table.polygon_offsets, table.point_offsets, table.coordinates)
        polygons = outlines.of_images(table.box_offsets.tolist())
    return records_of_arrays(
        *(paths, packed_numbers(table.image_ids).tolist(), unpack_ids(table.image_ids)),
        np.stack([table.widths, table.heights], axis=1),
        Rows(table.boxes, table.box_offsets),
        table.classes,
        Rows(table.crowd_boxes, table.crowd_offsets),
        polygons,
    )

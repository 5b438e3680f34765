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
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.listings import FileIndex
from sniper.data.problems import MISSING_FILE, OnProblem, Problem, stop_at_errors
from sniper.data.record import Polygons, Record
from sniper.errors import DataError

logger = logging.getLogger(__name__)

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 3

_MISSING_SHOWN = 5
_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FOLDER_OF_SET = dict.fromkeys(("minival2014", "sminival2014", "valminusminival2014"), "val2014")


def load_coco(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    legacy_boxes: bool = False,
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
        legacy_boxes: boxes by the rules of 2018 (`sniper.data.coco_parse.convert_boxes`).
        cache_dir: where parsed annotations are kept, keyed by their content; None for no cache. A
            cache tells no warnings.
        on_problem: gets every problem; when it comes back, the broken entry is left out.

    Raises:
        DataError: there are no usable annotations; by default also for everything that is missing
            or broken.
    """
    root = Path(dataset_path)
    annotation_path = find_annotations(root, image_set)
    name = f"COCO_{image_set}"
    table = _table(annotation_path, name, with_masks, legacy_boxes, cache_dir, on_problem)
    paths = _find_images(root, image_set, table, annotation_path, on_problem)
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
        category_ids=(0, *table.category_ids.tolist()),
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


def find_annotations(root: Path, image_set: str) -> Path:
    """The annotation file of a set.

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
        root / "annotations" / f"{kind}_{image_set}.json" for kind in ("instances", "image_info")
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"the set {image_set!r} has no annotation file",
        where=root,
        expected=" or ".join(map(str, candidates)),
        fix="check dataset.dataset_path and the set's name",
    )


def image_folder(image_set: str) -> str:
    """The folder of a set's images: 2014 subsets live in val2014, test-dev sets in test<year>."""
    test_dev = re.fullmatch(r"test-dev(\d{4})", image_set)
    return f"test{test_dev[1]}" if test_dev else _FOLDER_OF_SET.get(image_set, image_set)


def image_candidates(root: Path, folder: str, image_id: int, file_name: str) -> tuple[str, ...]:
    """The paths that an image may have, the 2018 layout first."""
    legacy = os.path.join(root, "images", folder, f"COCO_{folder}_{image_id:012d}.jpg")
    if not file_name:
        return (legacy,)
    return (
        legacy,
        os.path.join(root, "images", folder, file_name),
        os.path.join(root, folder, file_name),
    )


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


def _find_images(
    root: Path, image_set: str, table: CocoTable, annotation_path: Path, on_problem: OnProblem
) -> list[str]:
    """One path per image. The layout of the first image found is tried first."""
    folder = image_folder(image_set)
    index = FileIndex()
    paths: list[str] = []
    missing: dict[int, tuple[str, ...]] = {}
    layout: int | None = None
    for image_id, file_name in zip(table.image_ids.tolist(), table.file_names.tolist()):
        candidates = image_candidates(root, folder, image_id, file_name)
        if layout is not None and layout < len(candidates) and index.has(candidates[layout]):
            paths.append(candidates[layout])
            continue
        place = next((i for i, path in enumerate(candidates) if index.has(path)), None)
        if place is None:
            missing[image_id] = candidates
            paths.append(candidates[-1])  # keeps paths and table in step
            continue
        layout = place if layout is None else layout
        paths.append(candidates[place])
    if missing:
        texts = (f"image {i}: no {' or '.join(tried)}" for i, tried in missing.items())
        error = _missing(list(missing.values()), len(paths), image_set, annotation_path)
        on_problem(Problem(MISSING_FILE, f"COCO_{image_set}", len(missing), texts, error))
    return paths


def _missing(
    tried: list[tuple[str, ...]], total: int, image_set: str, annotation_path: Path
) -> DataError:
    shown = ", ".join(os.path.basename(paths[-1]) for paths in tried[:_MISSING_SHOWN])
    return DataError(
        f"{len(tried)} of {total} images of COCO_{image_set} are missing",
        where=annotation_path,
        got=f"no file for {shown}{', ...' if len(tried) > _MISSING_SHOWN else ''}",
        expected=" or ".join(tried[0]),
        fix="put the images there, or remove them from the annotation file",
    )


def _records(table: CocoTable, paths: list[str], with_masks: bool) -> tuple[Record, ...]:
    starts, crowd_starts = table.box_offsets.tolist(), table.crowd_offsets.tolist()
    is_gt = np.ones(len(table.boxes), np.bool_)
    polygons = _polygons(table) if with_masks else ()
    image_ids, widths = table.image_ids.tolist(), table.widths.tolist()
    heights = table.heights.tolist()
    records = []
    for i, path in enumerate(paths):
        rows = slice(starts[i], starts[i + 1])
        records.append(
            Record(
                image_path=path,
                image_id=image_ids[i],
                width=widths[i],
                height=heights[i],
                flipped=False,
                boxes=table.boxes[rows],
                classes=table.classes[rows],
                is_gt=is_gt[rows],
                polygons=polygons[rows] if with_masks else None,
                crowd_boxes=table.crowd_boxes[crowd_starts[i] : crowd_starts[i + 1]],
            )
        )
    return tuple(records)


def _polygons(table: CocoTable) -> Polygons:
    """The polygons of every object: views of one array."""
    points, polygons = table.point_offsets.tolist(), table.polygon_offsets.tolist()
    rings = [table.coordinates[start:end] for start, end in zip(points, points[1:])]
    return tuple(tuple(rings[start:end]) for start, end in zip(polygons, polygons[1:]))

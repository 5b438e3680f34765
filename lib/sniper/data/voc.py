"""Data sets in the layout of Pascal VOC: `VOC<year>/{ImageSets/Main,JPEGImages,Annotations}`."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from sniper.data.cache import cache_file, cached_arrays
from sniper.data.dataset import BACKGROUND, Dataset, VocTruth
from sniper.data.image_header import image_size
from sniper.data.listings import FileIndex, read_class_list, read_lines, stable_ids
from sniper.data.record import Record
from sniper.data.voc_annotation import (
    TABLE_FIELDS,
    VocTable,
    annotations_sha256,
    empty_table,
    read_table,
)
from sniper.errors import DataError

logger = logging.getLogger(__name__)

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 1

_SET_NAME = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9_][A-Za-z0-9_.-]*)")
# The list of one class has a flag behind every name.
_FLAGGED = re.compile(r"(\S+)\s+-?[01]")
# The names of VOC are numbers, which serve as ids: 000005 and 2008_000008.
_NUMBERED = re.compile(r"(?:\d{4}_)?\d{6}")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp")
_MISSING_SHOWN = 20


def load_voc(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    cache_dir: str | Path | None = None,
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
        cache_dir: where parsed annotations are kept, keyed by their content; None for no cache.

    Raises:
        DataError: lists, annotations or images are missing or broken, or masks are asked for.
    """
    year, subset = parse_set(image_set)
    root = Path(dataset_path) / f"VOC{year}"
    name = f"PASCALVOC_{year}_{subset}"
    if with_masks:
        raise DataError(
            f"{name} has no masks: Pascal VOC annotations hold boxes only",
            where=root,
            fix="--set TRAIN.WITH_MASK False, with a symbol without mask head",
        )
    list_path = root / "ImageSets" / "Main" / f"{subset}.txt"
    names = read_image_list(list_path)
    class_names = (BACKGROUND, *(read_class_list(root, root.parent) or VOC_CLASSES))
    annotations = _find_annotations(root, names, list_path)
    table = _table(names, annotations, class_names, name, list_path, cache_dir)
    dataset = _dataset(name, (year, subset), names, class_names, table, root, bool(annotations))
    logger.info(
        "%s: %d images, %d objects, %d difficult ones, %d classes",
        *(name, len(names), len(table.boxes), np.count_nonzero(table.difficult)),
        len(class_names) - 1,
    )
    return dataset


def parse_set(image_set: str) -> tuple[str, str]:
    """Year and set of a name: `07_test` -> ("2007", "test").

    Raises:
        DataError: it is no such name.
    """
    match = _SET_NAME.fullmatch(image_set)
    if match is None:
        raise DataError(
            "a Pascal VOC set is named by its year and its list",
            where="dataset.image_set or dataset.test_image_set",
            got=repr(image_set),
            expected="2007_trainval, 2012_val, ...",
        )
    year, subset = match.groups()
    return (f"20{year}" if re.fullmatch(r"[01]\d", year) else year), subset


def read_image_list(path: Path) -> tuple[str, ...]:
    """Names of the images in a list of `ImageSets/Main`; a class's flags are ignored.

    Raises:
        DataError: the list is missing, empty or broken.
    """
    lines = read_lines(path, "list of images")
    flagged = [_FLAGGED.fullmatch(line) for line in lines]
    names = [match[1] for match in flagged] if lines and all(flagged) else lines
    problem = None
    twice = len(names) - len(set(names))
    outside = [name for name in names if _leaves_folder(name)]
    if not names:
        problem = "no name"
    elif twice:
        problem = f"{twice} names that stood there before"
    elif outside:
        problem = f"{outside[0]!r}, which leaves the folder of the images"
    if problem is not None:
        raise DataError("the list of images is broken", where=path, got=problem)
    return tuple(names)


def _leaves_folder(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _find_annotations(root: Path, names: tuple[str, ...], list_path: Path) -> list[str]:
    """The annotation file of every image, or none at all for a set without annotations."""
    index = FileIndex()
    paths = [os.path.join(root, "Annotations", f"{name}.xml") for name in names]
    missing = [path for path in paths if not index.has(path)]
    if len(missing) == len(paths):
        return []
    if missing:
        raise _missing(missing, len(paths), "annotation files", list_path)
    return paths


def _table(
    names: tuple[str, ...],
    annotations: list[str],
    class_names: tuple[str, ...],
    name: str,
    list_path: Path,
    cache_dir: str | Path | None,
) -> VocTable:
    if not annotations:
        return empty_table(len(names))
    class_index = {name.lower(): index for index, name in enumerate(class_names) if index}
    if cache_dir is None:
        return read_table(annotations, class_index)
    key = {
        "annotation files": annotations_sha256(names, annotations),
        "list of classes": ", ".join(class_names[1:]),
        "format version": str(CACHE_FORMAT),
    }
    path = cache_file(cache_dir, name, list_path)
    arrays = cached_arrays(
        path, key, TABLE_FIELDS, lambda: vars(read_table(annotations, class_index))
    )
    return VocTable(**arrays)


def _dataset(
    name: str,
    year_and_subset: tuple[str, str],
    names: tuple[str, ...],
    class_names: tuple[str, ...],
    table: VocTable,
    root: Path,
    has_annotations: bool,
) -> Dataset:
    year, subset = year_and_subset
    paths = _find_images(root, names)
    image_ids = voc_image_ids(names)
    widths, heights = _sizes(table, paths)
    truth = VocTruth(
        year=year,
        subset=subset,
        image_names=dict(zip(image_ids.tolist(), names)),
        image_ids=np.repeat(image_ids, np.diff(table.offsets)),
        boxes=table.boxes,
        classes=table.classes,
        difficult=table.difficult,
    )
    return Dataset(
        name=name,
        image_set=f"{year}_{subset}",
        class_names=class_names,
        category_ids=tuple(range(len(class_names))),
        records=_records(table, paths, image_ids.tolist(), widths, heights),
        annotation_path=str(root / "Annotations"),
        has_annotations=has_annotations,
        voc=truth,
    )


def voc_image_ids(names: tuple[str, ...]) -> np.ndarray:
    """The numbers of VOC names; other names are hashed."""
    if all(map(_NUMBERED.fullmatch, names)):
        return np.array([int(name.replace("_", "")) for name in names], np.int64)
    return stable_ids(names)


def _find_images(root: Path, names: tuple[str, ...]) -> list[str]:
    index = FileIndex()
    paths, missing = [], []
    for name in names:
        stem = os.path.join(root, "JPEGImages", name)
        found = next((stem + ending for ending in IMAGE_ENDINGS if index.has(stem + ending)), None)
        if found is None:
            missing.append(f"{stem}{IMAGE_ENDINGS[0]}")
        paths.append(found or "")
    if missing:
        raise _missing(missing, len(names), "images", root / "JPEGImages")
    return paths


def _missing(paths: list[str], total: int, what: str, where: Path) -> DataError:
    shown = ", ".join(os.path.basename(path) for path in paths[:_MISSING_SHOWN])
    return DataError(
        f"{len(paths)} of {total} {what} are missing",
        where=where,
        got=f"no file for {shown}{', ...' if len(paths) > _MISSING_SHOWN else ''}",
        expected=paths[0],
        fix="put the files there, or remove the names from the list",
    )


def _sizes(table: VocTable, paths: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of all images; those that the annotations lack come from the files."""
    widths, heights = table.widths.copy(), table.heights.copy()
    unknown = np.flatnonzero(widths == 0)
    for i in unknown.tolist():
        widths[i], heights[i] = image_size(paths[i])
    if len(unknown):
        logger.info("%d annotations give no size: taken from the images", len(unknown))
    return widths, heights


def _records(
    table: VocTable, paths: list[str], image_ids: list[int], widths: np.ndarray, heights: np.ndarray
) -> tuple[Record, ...]:
    image_of_box = np.repeat(np.arange(len(paths)), np.diff(table.offsets))
    limits = np.stack([widths, heights, widths, heights], axis=1)[image_of_box] - 1
    # Truncated after the clipping at 0, which 2018 left out: its boxes wrapped to 65535.
    boxes = np.trunc(np.clip(table.boxes, 0, None)).astype(np.float32)
    cut = np.minimum(boxes, limits).astype(np.float32)
    inside = (cut[:, :2] == boxes[:, :2]).all(axis=1) & (table.boxes[:, 2:] >= -1).all(axis=1)
    _tell_outside(np.count_nonzero((cut != boxes).any(axis=1)), np.count_nonzero(~inside))
    kept = np.flatnonzero(inside & ~table.difficult)
    counts = np.bincount(image_of_box[kept], minlength=len(paths))
    ends = np.cumsum(counts).tolist()
    boxes, classes, is_gt = cut[kept], table.classes[kept], np.ones(len(kept), np.bool_)
    return tuple(
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
        for path, image_id, width, height, count, end in zip(
            paths, image_ids, widths.tolist(), heights.tolist(), counts.tolist(), ends
        )
    )


def _tell_outside(reaching: int, outside: int) -> None:
    if reaching or outside:
        logger.warning(
            "%d boxes reach beyond their image and are cut, %d of them lie outside and are dropped",
            *(reaching, outside),
        )

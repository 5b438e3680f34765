"""Data sets in the official format of Open Images: tables of boxes and labels beside the images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from sniper.data.account import Entry, intake_of_array
from sniper.data.cache import cache_file, cached_arrays, file_sha256
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.image_paths import ImagePlaces, find_images
from sniper.data.listed_images import complete_sizes
from sniper.data.openimages_arrays import (
    SetArrays,
    TableBoxes,
    set_arrays,
    truth_of,
    unpack_texts,
)
from sniper.data.openimages_tables import (
    ClassList,
    find_file,
    find_sets,
    read_boxes,
    read_boxes_2018,
    read_classes,
    read_images,
    read_labels,
)
from sniper.data.openimages_truth import (
    CLASS_FILES,
    OpenImagesTruth,
    box_classes,
    joined_ids,
    places_of,
    read_tree,
    verified_labels,
)
from sniper.data.orientation import AUTO, IGNORE
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.data.record import Record, Rows, records_of_arrays
from sniper.errors import DataError

logger = logging.getLogger(__name__)

GROUP_BOXES = Entry("group_boxes", "group boxes")
PRESENT_LABELS = Entry("labels_present", "verified labels of classes that are present")
ABSENT_LABELS = Entry("labels_absent", "verified labels of classes that are absent")

# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 4


@dataclass(frozen=True)
class _Files:
    """The files of a set; `is_official` tells the tables of Open Images from those of 2018."""

    boxes: Path
    labels: Path | None
    images: Path | None
    classes: Path
    is_official: bool


def load_openimages(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    image_folder: str | None = None,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads `<set>-annotations-bbox.csv` and what belongs to it.

    The tables lie in the folder or in folders in it, the images in `images/<set>` or `<set>`, named
    after their ids. `class-descriptions-boxable.csv` chooses and orders the classes (2018
    behaviour); category ids are the machine ids. Group boxes are crowd regions. Where a set has
    none of the official tables, `annotations/<set>.csv` is the private one of 2018: image, class,
    x1, y1, x2, y2 in px, group, height, width.

    Boxes of the official tables are rounded to 0.01 px.

    Sizes come from `<set>-images*.csv` with Width and Height, or from the image files: they are
    read once and kept with the parsed tables.

    Args:
        dataset_path: the folder.
        image_set: the set's name.
        with_masks: refused: the tables hold boxes.
        image_folder: another folder of the images, with `{set}` for the set's name; relative to
            `dataset_path`.
        exif: `dataset.EXIF`, for sizes that come from the files.
        cache_dir: where parsed tables and sizes are kept, keyed by the tables' content; None for no
            cache. A cache tells no warnings.
        on_problem: gets every problem; when it comes back, the broken box or image is left out.

    Raises:
        ConfigError: pandas is not installed.
        DataError: there is no such set, or masks are asked for; by default also for everything that
            is missing or broken.
    """
    root = Path(dataset_path)
    if with_masks:
        raise DataError(
            "the tables of Open Images hold boxes only",
            where=root,
            fix="--set TRAIN.WITH_MASK False, with a symbol without mask head",
        )
    files = _find_files(root, image_set)
    name = f"OPENIMAGES_{image_set}"
    classes = read_classes(files.classes)
    places = _image_places(root, image_set, image_folder)

    def read(hear: OnProblem) -> SetArrays:
        return _read(files, classes, places, name, exif, hear)

    arrays = _cached(read, files, places, name, exif, cache_dir, on_problem)
    dataset = _dataset(root, files, arrays, classes, image_set, name)
    _tell(dataset, arrays)
    return dataset


def _find_files(root: Path, image_set: str) -> _Files:
    class_file = find_file(root, CLASS_FILES)
    if class_file is None:
        raise DataError("the list of classes is missing", where=root, expected=CLASS_FILES)
    official = find_sets(root)
    if image_set in official:
        of_set = official[image_set]
        images = find_file(root, f"{image_set}-images*.csv")
        return _Files(of_set.boxes, of_set.labels, images, class_file, is_official=True)
    private = root / "annotations" / f"{image_set}.csv"
    if private.is_file():
        return _Files(private, None, None, class_file, is_official=False)
    raise DataError(
        f"the set {image_set!r} has no boxes",
        where=root,
        got=f"sets: {', '.join(official) or 'none'}",
        expected=f"{image_set}-annotations-bbox.csv in it or in a folder in it, or {private}",
        fix="check dataset.dataset_path and the set's name",
    )


def _image_places(root: Path, image_set: str, image_folder: str | None) -> ImagePlaces:
    folders = [root / "images" / image_set, root / image_set, root / "images", root]
    if image_folder:
        folders = [root / image_folder.replace("{set}", image_set)]
    return ImagePlaces(tuple(map(str, folders)), "{}.jpg")


def _cached(
    read: Callable[[OnProblem], SetArrays],
    files: _Files,
    places: ImagePlaces,
    name: str,
    exif: str,
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> SetArrays:
    if cache_dir is None:
        return read(on_problem)
    key = {
        "tables": " ".join(
            file_sha256(path)
            for path in (files.boxes, files.labels, files.images, files.classes)
            if path is not None
        ),
        "folder of the images": " ".join(places.folders),
        "pixels of sizes": "stored" if exif == IGNORE else "shown",
        "format version": str(CACHE_FORMAT),
    }
    names = [field.name for field in fields(SetArrays)]
    path = cache_file(cache_dir, name, files.boxes)
    # What is kept has no errors, whoever wants to hear of them.
    return SetArrays(**cached_arrays(path, key, names, lambda: vars(read(stop_at_errors))))


def _read(
    files: _Files,
    classes: ClassList,
    places: ImagePlaces,
    name: str,
    exif: str,
    on_problem: OnProblem,
) -> SetArrays:
    """Everything from the files, with sizes from the images where no table has them."""
    if files.is_official:
        table, in_px = read_boxes(files.boxes), None
    else:
        table, in_px = read_boxes_2018(files.boxes)
    labels = read_labels(files.labels) if files.labels is not None else None
    listed = read_images(files.images) if files.images is not None else None
    image_ids = joined_ids(table, labels)
    images = places_of(table.image_ids, image_ids).astype(np.int32)[table.images]
    found = TableBoxes(
        *(images, box_classes(table, classes, files.boxes), table.boxes, table.groups),
        are_shares=in_px is None,
    )
    verified = verified_labels(labels, classes, image_ids)
    del table, labels  # hundreds of MB
    file_names, sizes = [f"{i}.jpg" for i in image_ids], np.zeros((len(image_ids), 2), np.int64)
    if listed is not None:
        rows = places_of(image_ids, listed.image_ids)
        known = rows >= 0
        sizes[known] = listed.sizes[rows[known]]
        if listed.file_names is not None:
            named = listed.file_names
            file_names = [
                named[row] if row >= 0 else own for row, own in zip(rows.tolist(), file_names)
            ]
    if in_px is not None:
        sizes[images] = in_px
    paths = find_images(*(places, list(zip(image_ids, file_names)), name, files.boxes, on_problem))
    sizes = complete_sizes(sizes, paths, name, on_problem, exif)
    return set_arrays(image_ids, paths, sizes, found, verified, name, on_problem)


def _dataset(
    root: Path, files: _Files, arrays: SetArrays, classes: ClassList, image_set: str, name: str
) -> Dataset:
    truth = OpenImagesTruth(
        read_tree(root, classes),
        groups_known=bool(arrays.groups_known),
        make=partial(truth_of, arrays),
    )
    return Dataset(
        name=name,
        image_set=image_set,
        class_names=(BACKGROUND, *classes.names),
        category_ids=(0, *classes.ids),
        records=_records(arrays),
        annotation_path=str(files.boxes),
        has_annotations=True,
        truth=truth,
        protocol="openimages",
        num_ignored=int(np.count_nonzero(arrays.groups)),
        counts=_counts(arrays),
        intake=intake_of_array(arrays.intake),
    )


def _records(arrays: SetArrays) -> tuple[Record, ...]:
    """Views of the arrays: millions of boxes stay where they are."""

    def chosen(rows: np.ndarray) -> Rows:
        before = np.concatenate([[0], np.cumsum(rows)])
        return Rows(arrays.boxes[rows], before[arrays.offsets])

    single = ~arrays.groups
    return records_of_arrays(
        *(unpack_texts(arrays.paths), arrays.numbers.tolist(), unpack_texts(arrays.image_ids)),
        arrays.sizes,
        chosen(single),
        arrays.classes[single],
        chosen(arrays.groups),
    )


def _counts(arrays: SetArrays) -> dict[Entry, int]:
    present = int(np.count_nonzero(arrays.present))
    return {
        GROUP_BOXES: int(np.count_nonzero(arrays.groups)),
        PRESENT_LABELS: present,
        ABSENT_LABELS: len(arrays.present) - present,
    }


def _tell(dataset: Dataset, arrays: SetArrays) -> None:
    images, objects = max(len(dataset.records), 1), int(np.count_nonzero(~arrays.groups))
    classes, counts = len(dataset.class_names) - 1, dataset.counts
    with_boxes = len(np.unique(arrays.classes[~arrays.groups]))
    logger.info(
        "%s: %d images, %d objects (%.1f an image), %d group boxes, %d verified labels (of an "
        "image %.1f present, %.1f absent), %d of %d classes without boxes",
        *(dataset.name, len(dataset.records), objects, objects / images),
        *(counts[GROUP_BOXES], len(arrays.present)),
        *(counts[PRESENT_LABELS] / images, counts[ABSENT_LABELS] / images),
        *(classes - with_boxes, classes),
    )

"""Data sets in the official format of Open Images: tables of boxes and labels beside the images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from sniper.data import account
from sniper.data.account import Entry, Intake, intake_of_array
from sniper.data.box_problems import AnnotatedBoxes, report_boxes
from sniper.data.cache import cache_file, cached_arrays, file_sha256
from sniper.data.coco_parse import convert_boxes
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ids import id_numbers
from sniper.data.image_paths import ImagePlaces, find_images
from sniper.data.listed_images import complete_sizes
from sniper.data.openimages_tables import (
    BoxRows,
    ClassList,
    LabelRows,
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
    TrueBoxes,
    Verified,
    places_of,
    read_tree,
    true_boxes,
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
CACHE_FORMAT = 3
# Tables have six decimals of a share, so that 12.34 px of a COCO file come back as 12.3401. Nobody
# draws finer than this, and rounded to it a rewritten set gives the very boxes of its origin.
_DECIMALS_PX = 2


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A set as its cache holds it: n images in the order of their ids, N boxes in that order.

    Attributes:
        image_ids: (n,) texts.
        numbers: (n,) int64 `Record.image_id`: hashing millions of texts takes long.
        paths: (n,) of the files.
        sizes: (n, 2) int64 width and height, px.
        offsets: (n + 1,) int64: image i owns the boxes offsets[i]:offsets[i + 1].
        boxes: (N, 4) float32 inclusive corners, px.
        classes: (N,) int32, 1 ... C.
        groups: (N,) bool: around several objects.
        groups_known: () bool: the table says so.
        verified_images, verified_labels, present: see `Verified`.
        intake: of the boxes, see `Intake.to_array`.
    """

    image_ids: np.ndarray
    numbers: np.ndarray
    paths: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    groups_known: np.ndarray
    verified_images: np.ndarray
    verified_labels: np.ndarray
    present: np.ndarray
    intake: np.ndarray


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

    def read(hear: OnProblem) -> _Arrays:
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
    read: Callable[[OnProblem], _Arrays],
    files: _Files,
    places: ImagePlaces,
    name: str,
    exif: str,
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> _Arrays:
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
    names = [field.name for field in fields(_Arrays)]
    path = cache_file(cache_dir, name, files.boxes)
    # What is kept has no errors, whoever wants to hear of them.
    return _Arrays(**cached_arrays(path, key, names, lambda: vars(read(stop_at_errors))))


def _read(
    files: _Files,
    classes: ClassList,
    places: ImagePlaces,
    name: str,
    exif: str,
    on_problem: OnProblem,
) -> _Arrays:
    """Everything from the files, with sizes from the images where no table has them."""
    if files.is_official:
        table, in_px = read_boxes(files.boxes), None
    else:
        table, in_px = read_boxes_2018(files.boxes)
    labels = read_labels(files.labels) if files.labels is not None else None
    listed = read_images(files.images) if files.images is not None else None
    image_ids = _image_ids(table, labels)
    found = true_boxes(table, classes, image_ids, files.boxes)
    groups_known = table.groups is not None
    verified = verified_labels(labels, classes, image_ids)
    del table, labels  # hundreds of MB
    file_names, sizes = [f"{i}.jpg" for i in image_ids.tolist()], np.zeros((len(image_ids), 2), int)
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
        sizes[found.images] = in_px
    paths = find_images(
        *(places, list(zip(image_ids.tolist(), file_names)), name, files.boxes, on_problem)
    )
    sizes = complete_sizes(sizes, paths, name, on_problem, exif)
    arrays = _arrays(
        *(image_ids, paths, sizes, found, verified, name, on_problem), shares=in_px is None
    )
    return replace(arrays, groups_known=np.array(groups_known))


def _image_ids(table: BoxRows, labels: LabelRows | None) -> np.ndarray:
    more = [] if labels is None else [labels.image_ids]
    return np.unique(np.concatenate([table.image_ids, *more]))


def _arrays(
    image_ids: np.ndarray,
    paths: Sequence[str],
    sizes: np.ndarray,
    found: TrueBoxes,
    verified: Verified,
    name: str,
    on_problem: OnProblem,
    *,
    shares: bool,
) -> _Arrays:
    order = np.argsort(found.images, kind="stable")
    owners = found.images[order]
    corners = found.boxes[order]
    of_image = sizes[owners].astype(np.float64)
    if shares:
        corners = np.round(corners * np.tile(of_image, 2), _DECIMALS_PX)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    read, kept = convert_boxes(xywh, of_image[:, 0], of_image[:, 1], legacy=False)
    kept &= of_image[:, 0] > 0

    def label(row: int) -> str:
        return f"image {image_ids[owners[row]]}"

    annotated = AnnotatedBoxes(
        corners=(corners[:, 0], corners[:, 1], corners[:, 2], corners[:, 3]),
        areas=xywh[:, 2] * xywh[:, 3],
        widths=of_image[:, 0],
        heights=of_image[:, 1],
        kept=kept,
        read=read,
        label=label,
    )
    counts = report_boxes(annotated, name, on_problem)
    groups = found.groups[order]
    intake = Intake(
        read=len(owners),
        left_out={**counts.left_out, account.CROWD.name: int(np.count_nonzero(groups & kept))},
        remarks=counts.remarks,
    )
    has_size = sizes[:, 0] > 0
    place = np.cumsum(has_size) - 1
    seen = has_size[verified.images]
    return _Arrays(
        image_ids=image_ids[has_size],
        numbers=id_numbers(image_ids[has_size].tolist()),
        paths=np.array(paths)[has_size],
        sizes=sizes[has_size],
        offsets=np.concatenate(
            [[0], np.cumsum(np.bincount(place[owners[kept]], minlength=int(has_size.sum())))]
        ).astype(np.int64),
        boxes=read[kept],
        classes=(found.labels[order][kept] + 1).astype(np.int32),
        groups=groups[kept],
        groups_known=np.array(True),
        verified_images=place[verified.images[seen]].astype(np.int32),
        verified_labels=verified.labels[seen].astype(np.int32),
        present=verified.present[seen],
        intake=intake.to_array(),
    )


def _dataset(
    root: Path, files: _Files, arrays: _Arrays, classes: ClassList, image_set: str, name: str
) -> Dataset:
    owners = np.repeat(np.arange(len(arrays.sizes)), np.diff(arrays.offsets))
    corners = arrays.boxes.astype(np.float64)
    corners[:, 2:] += 1
    shares = corners / np.tile(arrays.sizes[owners], 2)
    truth = OpenImagesTruth(
        read_tree(root, classes),
        TrueBoxes(owners, arrays.classes.astype(np.int64) - 1, shares, arrays.groups),
        Verified(
            arrays.verified_images.astype(np.int64),
            arrays.verified_labels.astype(np.int64),
            arrays.present,
        ),
        groups_known=bool(arrays.groups_known),
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


def _records(arrays: _Arrays) -> tuple[Record, ...]:
    """Views of the arrays: millions of boxes stay where they are."""

    def chosen(rows: np.ndarray) -> Rows:
        before = np.concatenate([[0], np.cumsum(rows)])
        return Rows(arrays.boxes[rows], before[arrays.offsets])

    single = ~arrays.groups
    return records_of_arrays(
        *(arrays.paths.tolist(), arrays.numbers.tolist(), arrays.image_ids.tolist()),
        arrays.sizes.tolist(),
        chosen(single),
        arrays.classes[single],
        chosen(arrays.groups),
    )


def _counts(arrays: _Arrays) -> dict[Entry, int]:
    present = int(np.count_nonzero(arrays.present))
    return {
        GROUP_BOXES: int(np.count_nonzero(arrays.groups)),
        PRESENT_LABELS: present,
        ABSENT_LABELS: len(arrays.present) - present,
    }


def _tell(dataset: Dataset, arrays: _Arrays) -> None:
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

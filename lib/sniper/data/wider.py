"""Data sets in the format of WIDER FACE: `wider_face_split/*.txt` and `WIDER_<set>/images`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from sniper.data import account
from sniper.data.account import Intake
from sniper.data.box_problems import (
    AnnotatedBoxes,
    report_boxes,
    report_corners,
    report_fractions,
    report_repeated,
)
from sniper.data.cache import cache_file, cached_arrays, file_sha256
from sniper.data.coco_objects import convert_boxes
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ids import id_numbers
from sniper.data.image_paths import ImagePlaces, find_images
from sniper.data.listed_images import complete_sizes
from sniper.data.orientation import AUTO, IGNORE
from sniper.data.problems import WARNING, OnProblem, Problem, ProblemKind, stop_at_errors
from sniper.data.record import Record, Rows, records_of_arrays
from sniper.data.wider_text import INVALID, WiderTable, read_annotations, read_image_names
from sniper.data.wider_truth import (
    WiderTruth,
    find_lists,
    list_sets,
    truth_of_lists,
    truth_of_table,
)
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

FACE = "face"
INVALID_FACE = ProblemKind(
    "invalid_face",
    WARNING,
    "faces flagged invalid",
    "they are regions to ignore, and not trained as faces",
)
# Raise it when the meaning or the content of the cached arrays changes.
CACHE_FORMAT = 1
_TEXT, _LIST = "wider_face_{set}_bbx_gt.txt", "wider_face_{set}_filelist.txt"
_FOLDER = "wider_face_split"
_TABLE_FIELDS = tuple(field.name for field in fields(WiderTable))


@dataclass(frozen=True, eq=False)
class _Images:
    """An annotation text with the paths and the (n, 2) sizes of its images, px."""

    table: WiderTable
    paths: list[str]
    sizes: np.ndarray


def load_wider(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    annotation_file: str | None = None,
    image_folder: str | None = None,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads `wider_face_split/wider_face_<set>_bbx_gt.txt`; the one class is `face`.

    Images are `WIDER_<set>/images/<event>/<name>`; their sizes are read once and kept with the
    parsed text. A set with `wider_face_<set>_filelist.txt` alone has no annotations.

    Boxes are cut at the border of their image; those without extent (zero or inverted) and those
    outside are left out. Faces flagged `invalid` are crowd regions. The first rows of a run say
    how many there are of each. Where the folder has the lists of the official evaluation
    (`find_lists`), results are evaluated as easy, medium and hard.

    Args:
        dataset_path: the folder.
        image_set: `train`, `val`, `test` or the name of an own set.
        with_masks: refused: the text holds boxes.
        annotation_file: another text, with `{set}` for the set's name; relative to `dataset_path`.
        image_folder: another folder of the images, the same.
        exif: `dataset.EXIF`, for the sizes of the images.
        cache_dir: where the parsed text and sizes are kept, keyed by the text's content; None for
            no cache.
        on_problem: gets every problem; when it comes back, the line, box or image is left out.

    Raises:
        ConfigError: lists are MATLAB files, and SciPy or h5py is not installed.
        DataError: there is no such set, or masks are asked for; by default also for the first line
            that cannot be read (with its number), and for missing or broken images.
    """
    root = Path(dataset_path)
    if with_masks:
        raise DataError(
            "the annotations of WIDER FACE hold boxes only",
            where=root,
            fix="--set TRAIN.WITH_MASK False, with a symbol without mask head",
        )
    path, is_annotated = _find_text(root, image_set, annotation_file)
    folder = _image_places(root, image_set, image_folder)
    name = f"WIDER_{image_set}"
    images = _cached(path, is_annotated, folder, name, exif, cache_dir, on_problem)
    truth = None
    if is_annotated:
        truth = truth_of_table(images.table, find_lists(root, image_set), path)
    records, intake, invalid = _records(images, name, path, on_problem)
    dataset = _dataset(name, image_set, records, path, truth, intake, invalid)
    _tell(dataset)
    return dataset


def read_wider_truth(path: Path, image_set: str | None) -> Dataset:
    """A set for evaluation, without its images.

    Args:
        path: a folder with annotation texts, lists of the evaluation, or both.
        image_set: the set; None where there is one, or one with lists.

    Raises:
        ConfigError: the set must be named, or SciPy or h5py is needed and not installed.
        DataError: files are missing or broken.
    """
    image_set = image_set or _only_set(path)
    texts = _texts(path, image_set)
    lists = find_lists(path, image_set)
    if texts:
        text = texts[0]
        truth = truth_of_table(read_annotations(text), lists, text)
    elif lists is not None:
        text, truth = lists.source, truth_of_lists(lists)
    else:
        raise _missing(path, image_set)
    # The metric asks for no size: that of what is annotated serves.
    ends = np.ones((len(truth.names), 2), np.int64)
    owners = np.repeat(np.arange(len(truth.names)), np.diff(truth.offsets))
    far = np.ceil(truth.boxes[:, :2] + np.maximum(truth.boxes[:, 2:], 0)).astype(np.int64)
    np.maximum.at(ends, owners, far)
    table = WiderTable(
        names=truth.names,
        offsets=truth.offsets,
        boxes=truth.boxes,
        attributes=np.zeros((len(truth.boxes), 6), np.int8),
        lines=np.zeros(len(truth.boxes), np.int64),
    )
    images = _Images(table, list(truth.names), ends)
    records, intake, _ = _records(images, f"WIDER_{image_set}", text, lambda _: None)
    return _dataset(f"WIDER_{image_set}", image_set, records, text, truth, intake, 0)


def _texts(root: Path, image_set: str) -> list[Path]:
    name = _TEXT.format(set=image_set)
    return [*sorted(root.glob(name)), *sorted(root.glob(f"*/{name}"))]


def _only_set(root: Path) -> str:
    """The set of a folder with one; of several the one with lists."""
    prefix, suffix = _TEXT.split("{set}")
    texts = _texts(root, "*")
    annotated = sorted({text.name[len(prefix) : -len(suffix)] for text in texts})
    listed = list_sets(root)
    candidates = listed or annotated
    if not candidates:
        raise _missing(root, "val")
    if len(candidates) > 1:
        raise ConfigError(
            "which set was detected on?",
            where=root,
            got=f"sets: {', '.join(candidates)}",
            fix="name it: --image_set val",
        )
    return candidates[0]


def _missing(root: Path, image_set: str) -> DataError:
    return DataError(
        f"the set {image_set!r} has no annotations of WIDER FACE",
        where=root,
        expected=f"{_FOLDER}/{_TEXT.format(set=image_set)}, or wider_easy_{image_set}.mat, "
        "wider_medium_... and wider_hard_... of the official evaluation",
        fix="check the folder and the set's name",
    )


def _find_text(root: Path, image_set: str, annotation_file: str | None) -> tuple[Path, bool]:
    """The text of a set, and whether it has faces."""
    if annotation_file:
        return root / annotation_file.replace("{set}", image_set), True
    texts = _texts(root, image_set)
    if texts:
        return texts[0], True
    name = _LIST.format(set=image_set)
    lists = [path for path in (root / _FOLDER / name, root / name) if path.is_file()]
    if lists:
        return lists[0], False
    raise DataError(
        f"the set {image_set!r} is missing",
        where=root,
        expected=f"{_FOLDER}/{_TEXT.format(set=image_set)}, or without faces {_FOLDER}/{name}",
        fix="check dataset.dataset_path and the set's name, or name the file with "
        "dataset.annotation_file",
    )


def _image_places(root: Path, image_set: str, image_folder: str | None) -> ImagePlaces:
    folders = [
        root / f"WIDER_{image_set}" / "images",
        root / f"WIDER_{image_set}",
        root / "images" / image_set,
        root / "images",
    ]
    if image_folder:
        folders = [root / image_folder.replace("{set}", image_set)]
    return ImagePlaces(tuple(map(str, folders)), "{}")


def _cached(
    path: Path,
    is_annotated: bool,
    places: ImagePlaces,
    name: str,
    exif: str,
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> _Images:
    if cache_dir is None:
        return _read(path, is_annotated, places, name, exif, on_problem)

    def build() -> dict[str, np.ndarray]:
        # What is kept has no errors, whoever wants to hear of them.
        images = _read(path, is_annotated, places, name, exif, stop_at_errors)
        arrays = {field: np.asarray(getattr(images.table, field)) for field in _TABLE_FIELDS}
        return {**arrays, "paths": np.array(images.paths, np.str_), "sizes": images.sizes}

    key = {
        "annotations": file_sha256(path),
        "folder of the images": " ".join(places.folders),
        "pixels of sizes": "stored" if exif == IGNORE else "shown",
        "format version": str(CACHE_FORMAT),
    }
    names = [*_TABLE_FIELDS, "paths", "sizes"]
    arrays = cached_arrays(cache_file(cache_dir, name, path), key, names, build)
    table = WiderTable(
        tuple(arrays["names"].tolist()), *(arrays[field] for field in _TABLE_FIELDS[1:])
    )
    return _Images(table, arrays["paths"].tolist(), arrays["sizes"])


def _read(
    path: Path,
    is_annotated: bool,
    places: ImagePlaces,
    name: str,
    exif: str,
    on_problem: OnProblem,
) -> _Images:
    table = read_annotations(path, on_problem) if is_annotated else _no_faces(path)
    named = [(image, image) for image in table.names]
    paths = find_images(places, named, name, path, on_problem)
    sizes = np.zeros((len(paths), 2), np.int64)
    return _Images(table, paths, complete_sizes(sizes, paths, name, on_problem, exif))


def _no_faces(path: Path) -> WiderTable:
    names = read_image_names(path)
    none = np.zeros(0, np.int64)
    offsets = np.zeros(len(names) + 1, np.int64)
    return WiderTable(names, offsets, np.zeros((0, 4)), np.zeros((0, 6), np.int8), none)


def _records(
    images: _Images, name: str, path: Path, on_problem: OnProblem
) -> tuple[tuple[Record, ...], Intake, int]:
    """Records of all images with a size, the account of all faces, and how many are ignored."""
    table, sizes = images.table, images.sizes
    owners = np.repeat(np.arange(len(sizes)), np.diff(table.offsets))
    widths, heights = sizes[owners].astype(np.float64).T
    x, y, w, h = table.boxes.T
    read, inside = convert_boxes(table.boxes, widths, heights, legacy=False)
    is_sized = widths > 0
    kept = inside & is_sized
    invalid = table.attributes[:, INVALID] != 0
    seen = np.flatnonzero(is_sized)

    def label(row: int) -> str:
        place = int(seen[row])
        return f"{table.names[owners[place]]}, line {table.lines[place]}"

    boxes = AnnotatedBoxes(
        corners=(x[seen], y[seen], (x + w)[seen], (y + h)[seen]),
        areas=(w * h)[seen],
        widths=widths[seen],
        heights=heights[seen],
        kept=kept[seen],
        read=read[seen],
        label=label,
        with_sides=True,
    )
    counts = report_boxes(boxes, name, on_problem)
    report_fractions(boxes, name, path, on_problem)
    report_corners(boxes, np.zeros(len(seen), bool), name, path, on_problem)
    repeated = report_repeated(boxes, owners[seen, None], name, on_problem)
    ignored = np.flatnonzero(kept & invalid)
    if len(ignored):
        texts = (f"{table.names[owners[row]]}, line {table.lines[row]}" for row in ignored.tolist())
        on_problem(Problem(INVALID_FACE, name, len(ignored), texts))
    intake = Intake(
        read=len(owners),
        left_out={
            account.BROKEN.name: int(np.count_nonzero(~is_sized)),
            account.IGNORED.name: len(ignored),
            **counts.left_out,
        },
        remarks={account.REPEATED.name: repeated, **counts.remarks},
    )
    has_size = np.flatnonzero(sizes[:, 0] > 0)

    def chosen(rows: np.ndarray) -> Rows:
        counted = np.bincount(owners[rows], minlength=len(sizes))[has_size]
        return Rows(read[rows], np.concatenate([[0], np.cumsum(counted)]))

    names = [table.names[row] for row in has_size.tolist()]
    records = records_of_arrays(
        [images.paths[row] for row in has_size.tolist()],
        id_numbers(table.names)[has_size].tolist(),
        names,
        sizes[has_size].astype(np.int64),
        chosen(kept & ~invalid),
        np.ones(int(np.count_nonzero(kept & ~invalid)), np.int32),
        chosen(kept & invalid),
    )
    return records, intake, len(ignored)


def _dataset(
    name: str,
    image_set: str,
    records: tuple[Record, ...],
    path: Path,
    truth: WiderTruth | None,
    intake: Intake,
    num_ignored: int,
) -> Dataset:
    return Dataset(
        name=name,
        image_set=image_set,
        class_names=(BACKGROUND, FACE),
        category_ids=(0, 1),
        records=records,
        annotation_path=str(path),
        has_annotations=truth is not None,
        truth=truth,
        protocol="wider",
        num_ignored=num_ignored,
        intake=intake,
    )


def _tell(dataset: Dataset) -> None:
    """What became of all boxes, in one line."""
    if dataset.intake is None or not dataset.has_annotations:
        logger.info("%s: %d images without annotations", dataset.name, len(dataset.records))
        return
    left_out = dataset.intake.left_out
    logger.info(
        "%s: %d images, %d without faces; %d boxes: %d faces, %d invalid (ignored regions); left "
        "out: %d without extent (zero or inverted), %d outside their image",
        *(dataset.name, len(dataset.records), sum(not r.num_gt for r in dataset.records)),
        *(dataset.intake.read, dataset.num_objects, dataset.num_ignored),
        *(left_out.get(entry.name, 0) for entry in (account.NO_EXTENT, account.OUTSIDE)),
    )

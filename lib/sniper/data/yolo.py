"""Data sets as YOLO programs write them: `data.yaml`, images, and a label file for each image."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from sniper.data.cache import cache_file, cached_arrays
from sniper.data.coco import CACHE_FORMAT, dataset_of_table
from sniper.data.coco_parse import TABLE_FIELDS, CocoTable, parse_content
from sniper.data.dataset import BACKGROUND, FROM_RECORDS, Dataset
from sniper.data.folders import find_images, image_records
from sniper.data.ids import stable_ids
from sniper.data.listings import FILE_NAME as CLASS_LIST
from sniper.data.listings import FileIndex
from sniper.data.orientation import AUTO, IGNORE
from sniper.data.problems import (
    BROKEN_ENTRY,
    WARNING,
    OnProblem,
    Problem,
    ProblemKind,
    first_lines,
    stop_at_errors,
)
from sniper.data.yolo_labels import ENDING, YoloObject, label_path, read_labels
from sniper.errors import DataError
from sniper.safe_yaml import PlainLoader, read_yaml_file

logger = logging.getLogger(__name__)

UNLABELLED = ProblemKind(
    "unlabelled",
    WARNING,
    "images without a label file",
    "they count as images without objects; label them if they have some",
)
LONELY_LABELS = ProblemKind(
    "lonely_labels",
    WARNING,
    "label files without an image",
    "their objects are left out: put the images there, or name them as their labels are named",
)
FILE_NAME = "data.yaml"
_NO_SETS = frozenset({"path", "names", "nc", "kpt_shape"})
_NOTHING = frozenset({"", "~", "null"})
_LABEL_FORMAT = 2
_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class YoloSets:
    """A `data.yaml`.

    Attributes:
        file: the yaml.
        names: of the classes, by their numbers from 0.
        sources: folders, lists, images or patterns of each set.
        roots: folders that relative sources may start from, the likeliest first.
        keypoint_numbers: that stand behind the box of every object; they are left out.
    """

    file: Path
    names: dict[int, str]
    sources: dict[str, list[str]]
    roots: tuple[Path, ...]
    keypoint_numbers: int = 0

    def paths(self, image_set: str) -> list[Path]:
        """The sources of a set, as they are on this machine.

        Raises:
            DataError: there is no such set, or a source is missing.
        """
        if image_set not in self.sources:
            raise DataError(
                f"there is no set {image_set!r}",
                where=self.file,
                got=", ".join(self.sources) or "no set at all",
                fix="name one of these in dataset.image_set or dataset.test_image_set",
            )
        return [self._find(text) for text in self.sources[image_set]]

    def _find(self, text: str) -> Path:
        if os.path.isabs(text):
            tried = [Path(text)]
        else:
            # Exports say `../train/images` of a folder beside the yaml.
            inside = text.replace("\\", "/")
            while inside.startswith("../"):
                inside = inside[3:]
            tried = [root / part for part in dict.fromkeys((text, inside)) for root in self.roots]
        for path in tried:
            if path.exists() or any(mark in path.name for mark in "*?["):
                return path
        raise DataError(
            "images of the set are missing",
            where=self.file,
            got=text,
            expected=" or ".join(dict.fromkeys(map(str, tried))),
            fix="correct `path` and the set's folder in the yaml",
        )


def load_yolo(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads a set of `<dataset_path>/data.yaml`, such as `train` or `val`.

    Labels are boxes or outlines, each in the file that `label_path` names; an image without one has
    no objects. Category ids are the class numbers, from 0. Results are evaluated as COCO's.

    Args:
        dataset_path: folder with one yaml, or the yaml.
        image_set: a key of the yaml.
        with_masks: also read the outlines.
        exif: `dataset.EXIF`: labels are parts of the picture as it is shown, or stored.
        cache_dir: where parsed labels and sizes of images are kept; None for no cache. A cache
            tells no warnings.
        on_problem: gets every problem; when it comes back, the broken line or image is left out.

    Raises:
        DataError: there is no such set; by default also for every broken line and image.
    """
    sets = read_sets(find_yaml(Path(dataset_path)))
    sources = sets.paths(image_set)
    images = find_images(sources, on_problem)
    index = FileIndex()
    labels = [_labels_of(image, index) for image in images]
    name = f"YOLO_{image_set}"
    unlabelled = [image for image, path in zip(images, labels) if path is None]
    has_labels = len(unlabelled) < len(images)
    if unlabelled and has_labels:
        texts = (f"{image}: no {label_path(image)}" for image in unlabelled)
        on_problem(Problem(UNLABELLED, name, len(unlabelled), texts))
    elif unlabelled:
        logger.info("%s: no image has labels, such as %s", name, label_path(images[0]))

    _tell_lonely_labels(sources, labels, name, on_problem)

    def parse(hear: OnProblem) -> CocoTable:
        content = _content(sets, images, labels if has_labels else None, exif, hear)
        return parse_content(content, sets.file, with_masks=with_masks, on_problem=hear)

    table = _table(parse, sets, images, labels, name, with_masks, exif, cache_dir, on_problem)
    paths = dict(zip(_names(sets, images), map(str, images)))
    found = [paths[file_name] for file_name in table.file_names.tolist()]
    dataset = dataset_of_table(name, image_set, table, found, sets.file, with_masks)
    logger.info(
        "%s: %d images, %d objects, %d classes",
        *(name, len(found), dataset.num_objects, len(sets.names)),
    )
    return replace(dataset, truth=FROM_RECORDS)


def find_yaml(path: Path) -> Path:
    """The yaml that a path names: itself, `data.yaml` in the folder, or the only one with `names`.

    Raises:
        DataError: there is none, or several.
    """
    if path.is_file():
        return path
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    others = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if len(others) != 1:
        raise DataError(
            "a YOLO set needs its yaml",
            where=path,
            got=", ".join(other.name for other in others) or "no yaml in that folder",
            expected=f"{FILE_NAME} with names, train and val",
            fix="name the folder or the yaml in dataset.dataset_path",
        )
    return others[0]


class _TextLoader(PlainLoader):
    """Takes values as they are written: a class may be called `no`, `007` or `1.10`."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # type: ignore[misc]


def read_sets(file: Path) -> YoloSets:
    """Reads a `data.yaml`.

    Raises:
        DataError: it is none.
    """
    try:
        content = read_yaml_file(file, _TextLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError("the yaml of a set cannot be read", where=file, got=error) from error
    if not isinstance(content, dict):
        raise _wrong(file, f"a {type(content).__name__}")
    names = _names_of(content.get("names"), file)
    count = content.get("nc", len(names))
    if str(count) != str(len(names)):
        raise _wrong(file, f"nc {count} beside {len(names)} names")
    sources = {
        str(key): [value] if isinstance(value, str) else value
        for key, value in content.items()
        if key not in _NO_SETS and _SET_NAME.fullmatch(str(key)) and _are_paths(value)
    }
    folder = file.resolve().parent
    root = content.get("path")
    roots = (folder / str(root), folder) if root else (folder,)
    return YoloSets(file, names, sources, roots, _keypoint_numbers(content, file))


def _keypoint_numbers(content: dict[str, Any], file: Path) -> int:
    """How many numbers each object of a pose set has behind its box, by its `kpt_shape`."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    try:
        points, numbers = map(int, shape)
    except (TypeError, ValueError):
        raise _wrong(file, f"kpt_shape: {shape!r:.100}") from None
    logger.info("%s: boxes are read, keypoints are left out", file)
    return points * numbers


def _names_of(value: Any, file: Path) -> dict[int, str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value or ())
    try:
        names = {int(key): str(name) for key, name in pairs}
    except (TypeError, ValueError):
        raise _wrong(file, f"names: {value!r:.100}") from None
    texts = list(names.values())
    twice = [text for place, text in enumerate(texts) if text in texts[:place]]
    if not names or not isinstance(value, (list, dict)):
        raise _wrong(file, "no names")
    if sorted(names) != list(range(len(names))):
        raise _wrong(file, f"names with the numbers {', '.join(map(str, sorted(names)))}")
    if "" in texts:
        raise _wrong(file, f"names: {value!r:.100}, of which one is empty")
    if twice or BACKGROUND in texts:
        raise _wrong(file, f"the name {twice[0] if twice else BACKGROUND!r} twice")
    return dict(sorted(names.items()))


def _are_paths(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, str) for entry in value)
    return isinstance(value, str) and value not in _NOTHING


def _wrong(file: Path, got: str) -> DataError:
    return DataError(
        "the yaml of a set is wrong",
        where=file,
        got=got,
        expected="names (a list, or 0: first 1: second ...), and train, val, test: a folder, a "
        "list of images (.txt), or several of these",
    )


def _labels_of(image: Path, index: FileIndex) -> Path | None:
    """The label file of an image: where it belongs, or beside the image."""
    beside = image.with_suffix(ENDING)
    return next((path for path in (label_path(image), beside) if index.has(str(path))), None)


def _tell_lonely_labels(
    sources: Sequence[Path], labels: Sequence[Path | None], name: str, on_problem: OnProblem
) -> None:
    """Label files in the folders of a set that belong to no image of it."""
    folders = {label_path(source / "any.jpg").parent for source in sources if source.is_dir()}
    # Beside images there may be texts of any kind.
    folders -= set(sources)
    used = {os.path.normpath(path) for path in labels if path is not None}
    texts = [
        f"{path}: no image of that name"
        for folder in sorted(folders)
        for path in sorted(folder.rglob(f"*{ENDING}"))
        if os.path.normpath(path) not in used and path.name != CLASS_LIST
    ]
    if texts:
        on_problem(Problem(LONELY_LABELS, name, len(texts), texts))


def _names(sets: YoloSets, images: Sequence[Path]) -> list[str]:
    """Names of images that stay when the folder moves."""
    root = sets.file.resolve().parent
    return [Path(os.path.relpath(image.absolute(), root)).as_posix() for image in images]


def _content(
    sets: YoloSets,
    images: Sequence[Path],
    labels: Sequence[Path | None] | None,
    exif: str,
    on_problem: OnProblem,
) -> dict[str, Any]:
    """The set as a COCO file has it."""
    root = sets.file.resolve().parent
    names = _names(sets, images)
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    read = image_records(images, range(len(images)), on_problem, exif)
    records = {record.image_path: record for record in read}
    for image, name, image_id in zip(images, names, stable_ids(names).tolist()):
        record = records.get(str(image))
        if record is None:
            continue
        # YOLO programs label and read pictures as they are shown, and so do records.
        width, height = record.width, record.height
        entries.append({"id": image_id, "file_name": name, "width": width, "height": height})
        path = labels[record.image_id] if labels is not None else None
        if path is not None:
            label = Path(os.path.relpath(path.absolute(), root)).as_posix()
            for one in _read(path, sets, on_problem):
                objects.append(_entry(one, label, image_id, width, height))
    content: dict[str, Any] = {
        "images": entries,
        "categories": [{"id": index, "name": text} for index, text in sets.names.items()],
    }
    return content if labels is None else {**content, "annotations": objects}


def _read(path: Path, sets: YoloSets, on_problem: OnProblem) -> list[YoloObject]:
    try:
        objects, broken = read_labels(path, len(sets.names), sets.keypoint_numbers)
    except DataError as error:
        objects, broken = [], [(0, error)]
    for _, problem in broken:
        on_problem(Problem(BROKEN_ENTRY, str(path), 1, [first_lines(problem)], problem))
    return objects


def _entry(one: YoloObject, label: str, image_id: int, width: int, height: int) -> dict[str, Any]:
    x, y, w, h = one.box()
    outline = one.outline(width, height)
    return {
        "id": f"{label}:{one.line}",
        "image_id": image_id,
        "category_id": one.class_index,
        "bbox": [x * width, y * height, w * width, h * height],
        **({"segmentation": [outline]} if outline else {}),
    }


def _table(
    parse: Callable[[OnProblem], CocoTable],
    sets: YoloSets,
    images: Sequence[Path],
    labels: Sequence[Path | None],
    name: str,
    with_masks: bool,
    exif: str,
    cache_dir: str | Path | None,
    on_problem: OnProblem,
) -> CocoTable:
    if cache_dir is None:
        return parse(on_problem)
    key = {
        "files": _files_sha256(sets, images, labels),
        "masks switch": str(with_masks),
        "pixels of sizes": "stored" if exif == IGNORE else "shown",
        "format version": f"{CACHE_FORMAT}.{_LABEL_FORMAT}",
    }
    arrays = cached_arrays(
        cache_file(cache_dir, name, sets.file),
        key,
        TABLE_FIELDS,
        # What is kept has no errors, whoever wants to hear of them.
        lambda: vars(parse(stop_at_errors)),
        also_good={"masks switch": str(True)},
    )
    return CocoTable(**arrays)


def _files_sha256(sets: YoloSets, images: Sequence[Path], labels: Sequence[Path | None]) -> str:
    """Names, sizes and times of all files: reading them all would take as long as parsing them."""
    facts_of_all = (sets.names, sets.keypoint_numbers)
    digest = hashlib.sha256(repr(facts_of_all).encode("utf-8", "surrogateescape"))
    for path in (*images, *labels):
        state = os.stat(path) if path is not None and path.exists() else None
        facts = None if state is None else (state.st_size, state.st_mtime_ns)
        digest.update(f"{path} {facts}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

"""The layout of ImageNet: which images a set has, in which order, and where their files are."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from sniper.data.annotation_files import XML_ENDING
from sniper.data.folder_walk import walk_files
from sniper.data.ids import stable_ids
from sniper.data.image_endings import has_image_ending
from sniper.data.imagenet_tables import ImagenetFolder
from sniper.data.listings import FileIndex, read_lines
from sniper.data.problems import DUPLICATE_NAME, OnProblem, Problem
from sniper.errors import DataError

# Behind a set's name: the folder of its annotations.
BBOX = "_bbox"
# Lists of 2018 that are not named after their set.
LISTS_2018 = {"fall11_whole": "3kcls_index", "ILSVRC2013_DET_val": "val"}

_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# `key number` in every line: the lists of the development kit.
_NUMBERED = re.compile(r"(\S+)\s+(\d+)")


@dataclass(frozen=True, eq=False)
class ImagenetLayout:
    """Where a set lives.

    Attributes:
        folder: the ImageNet folder.
        image_set: the set's name.
        images: folder of the images.
        annotations: folder of the annotation files.
    """

    folder: ImagenetFolder
    image_set: str
    images: Path
    annotations: Path

    @property
    def name(self) -> str:
        """The set's name in files."""
        return f"IMAGENET_{self.image_set}"

    def list_path(self) -> Path | None:
        """The list of the set's images: `<set>.txt`, or that of 2018."""
        names = [self.image_set]
        if self.image_set in LISTS_2018:
            names.append(LISTS_2018[self.image_set])
        for folder in self.folder.table_folders:
            for name in names:
                if (folder / f"{name}.txt").is_file():
                    return folder / f"{name}.txt"
        return None


def layout_of(
    folder: ImagenetFolder, image_set: str, annotation_file: str | None, image_folder: str | None
) -> ImagenetLayout:
    """Finds the folders of a set.

    Images are in `<set>` (or `images/<set>`, `Data/<set>`), annotations in `<set>_bbox` (or
    `Annotations/<set>`, or beside the images).

    Args:
        folder: the ImageNet folder.
        image_set: the set's name.
        annotation_file: `dataset.annotation_file`, here a folder; relative to the root.
        image_folder: `dataset.image_folder`, the same.

    Raises:
        DataError: the set's name is no name of a folder, or there is no such set.
    """
    if not _SET_NAME.fullmatch(image_set):
        raise DataError(
            "a set's name may hold letters, digits, '_', '-' and '.' only",
            where="dataset.image_set or dataset.test_image_set",
            got=repr(image_set),
        )
    root = folder.root
    images = [root / image_set, root / "images" / image_set, root / "Data" / image_set]
    if image_folder:
        images = [root / image_folder.replace("{set}", image_set)]
    annotations = [*_annotations_of(root, image_set), *images]
    if annotation_file:
        annotations = [root / annotation_file.replace("{set}", image_set)]
    places = [next((p for p in tried if p.is_dir()), None) for tried in (images, annotations)]
    if places[0] is None:
        raise DataError(
            f"the set {image_set!r} has no folder of images",
            where=root,
            expected=" or ".join(map(str, images)),
            fix="check dataset.dataset_path and the set's name, or name the folder with "
            "dataset.image_folder",
        )
    if places[1] is None:
        raise DataError(
            f"the set {image_set!r} has no annotations",
            where=root,
            expected=" or ".join(map(str, annotations)),
            fix="name their folder with dataset.annotation_file",
        )
    return ImagenetLayout(folder, image_set, places[0], places[1])


def layout_of_annotations(folder: ImagenetFolder, image_set: str) -> ImagenetLayout:
    """A set whose images nobody looks for.

    Raises:
        DataError: it has no annotations.
    """
    candidates = _annotations_of(folder.root, image_set)
    for path in candidates:
        if path.is_dir() and _SET_NAME.fullmatch(image_set):
            return ImagenetLayout(folder, image_set, path, path)
    raise DataError(
        f"the set {image_set!r} has no annotations",
        where=folder.root,
        expected=" or ".join(map(str, candidates)),
    )


def _annotations_of(root: Path, image_set: str) -> list[Path]:
    return [root / f"{image_set}{BBOX}", root / "Annotations" / image_set]


@dataclass(frozen=True, eq=False)
class ImageList:
    """The images of a set.

    Attributes:
        keys: path of each below the folders of images and annotations, without ending.
        ids: (n,) int64: the numbers of a numbered list, else what the keys are hashed to.
        source: the list, or the folder that was searched.
        is_numbered: a list gives the numbers.
        det_numbers: of validation images of ILSVRC DET: the numbers of all of them, rising.
    """

    keys: tuple[str, ...]
    ids: np.ndarray
    source: Path
    is_numbered: bool = False
    det_numbers: np.ndarray | None = None


def list_images(layout: ImagenetLayout, on_problem: OnProblem) -> ImageList:
    """The images of the set's list; without one all that are annotated, or all that there are.

    Raises:
        DataError: the list is broken, or there is no image.
    """
    path = layout.list_path()
    if path is not None:
        return _of_list(path, on_problem)
    for folder, is_wanted in ((layout.annotations, _is_xml), (layout.images, has_image_ending)):
        files = walk_files(str(folder), is_wanted, recursive=True)
        keys = sorted({_key(os.path.relpath(path, folder)) for path in files})
        if keys:
            return ImageList(tuple(keys), stable_ids(keys), folder)
    raise DataError(
        f"the set {layout.image_set!r} is empty",
        where=layout.annotations,
        expected="annotation files, with images of the same names",
    )


def _is_xml(path: str) -> bool:
    return path.lower().endswith(XML_ENDING)


def _key(path: str) -> str:
    return Path(os.path.splitext(path)[0]).as_posix()


def _of_list(path: Path, on_problem: OnProblem) -> ImageList:
    lines = read_lines(path, "list of images")
    numbered = [match for match in map(_NUMBERED.fullmatch, lines) if match]
    if len(numbered) == len(lines):
        keys = [match[1] for match in numbered]
        numbers = [int(match[2]) for match in numbered]
    else:
        keys, numbers = [key for line in lines for key in line.split()], []
    outside = [key for key in keys if _leaves_folder(key)]
    uses = Counter(keys)
    if not keys or outside or len(set(numbers)) < len(numbers):
        got = "no image" if not keys else "a number twice"
        raise _broken(path, f"{outside[0]!r}, which leaves the folder" if outside else got)
    if len(uses) < len(keys):
        texts = [f"{key}: {count} times" for key, count in uses.items() if count > 1]
        error = _broken(path, f"{len(keys) - len(uses)} images that stood there before")
        on_problem(Problem(DUPLICATE_NAME, path.name, len(texts), texts, error))
    keys_once = tuple(uses)
    if not numbers:
        return ImageList(keys_once, stable_ids(keys_once), path)
    first = dict(zip(reversed(keys), reversed(numbers)))
    ids = np.array([first[key] for key in keys_once], np.int64)
    return ImageList(keys_once, ids, path, is_numbered=True)


def _broken(path: Path, got: str) -> DataError:
    return DataError("the list of images is broken", where=path, got=got)


def _leaves_folder(key: str) -> bool:
    path = PurePosixPath(key)
    return path.is_absolute() or ".." in path.parts


def annotation_paths(layout: ImagenetLayout, keys: Sequence[str]) -> list[str]:
    """The annotation file of each image; "" for none."""
    index = FileIndex()
    paths = [os.path.join(layout.annotations, key + XML_ENDING) for key in keys]
    return [path if index.has(path) else "" for path in paths]


@dataclass(eq=False)
class ImagesByName:
    """Images anywhere below a folder, by their name; the folder is walked when one is asked for."""

    folder: Path
    _paths: dict[str, list[str]] | None = field(default=None, repr=False)

    def __call__(self, key: str) -> list[str]:
        """The images with the name that a key ends in."""
        if self._paths is None:
            self._paths = {}
            for path in walk_files(str(self.folder), has_image_ending, recursive=True):
                stem = os.path.splitext(os.path.basename(path))[0]
                self._paths.setdefault(stem, []).append(path)
        return self._paths.get(os.path.basename(key), [])

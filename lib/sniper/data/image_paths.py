"""Where the images of an annotation file are: `file_name` decides."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sniper.data.ids import FileId
from sniper.data.listings import FileIndex, with_reason
from sniper.data.problems import (
    DUPLICATE_NAME,
    MISSING_FILE,
    RELATED_PATH,
    SIMILAR_NAME,
    OnProblem,
    Problem,
)
from sniper.errors import DataError

_MISSING_SHOWN = 5
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://[^/]*/")
_DRIVE = re.compile(r"^[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class ImagePlaces:
    """Where images may be.

    Attributes:
        folders: folders that file names may start from, the most likely first.
        legacy_name: name of an image whose entry has no `file_name`, with `{}` for the id.
    """

    folders: tuple[str, ...]
    legacy_name: str

    def exact(self, image_id: FileId, file_name: str) -> list[str]:
        """The paths that mean `file_name` as it is written."""
        if not file_name:
            number = f"{image_id:012d}" if isinstance(image_id, int) else str(image_id)
            names = (self.legacy_name.format(number), f"{number}.jpg")
            return [os.path.join(self.folders[0], name) for name in names]
        return [os.path.join(folder, file_name) for folder in self.folders]

    def related(self, file_name: str) -> list[list[str]]:
        """The paths for a name that was written for another folder or system, best first.

        `images\\a.png`, `C:\\me\\a.png`, `/home/me/set/train/a.png` and `a%20b.png` keep as much
        of their end as leads to a file below the folders; nothing leads out of these. Paths with
        the same end stand together.
        """
        candidates: list[list[str]] = []
        for name in dict.fromkeys((file_name, unquote(file_name))):
            if _URL.match(name):  # what stands behind a question mark is for the web server
                name = _URL.sub("", name).split("?")[0]
            path = _DRIVE.sub("", name).replace("\\", "/")
            parts = [part for part in path.split("/") if part not in ("", ".")]
            if ".." in parts:
                parts = parts[len(parts) - parts[::-1].index("..") :]
            for start in range(len(parts)):
                end = os.path.join(*parts[start:])
                candidates.append([os.path.join(folder, end) for folder in self.folders])
        return candidates


def find_images(
    places: ImagePlaces,
    images: Sequence[tuple[FileId, str]],
    set_name: str,
    annotation_path: Path,
    on_problem: OnProblem,
) -> list[str]:
    """One path for each (id, file name).

    Names that stand for another folder or system, and those that differ from the only file that
    fits in case or accents, are told once; those that fit several files, and
    two images that would be one file, are refused.

    Args:
        places: where to look.
        images: id and `file_name` of each; the name may be empty.
        set_name: for messages.
        annotation_path: for messages.
        on_problem: gets every problem.

    Raises:
        DataError: by default, for images that are missing, fit several files or share one.
    """
    index = FileIndex()
    paths: list[str] = []
    related: dict[int, str] = {}
    similar: dict[int, str] = {}
    ambiguous: dict[int, list[str]] = {}
    missing: dict[int, list[str]] = {}
    layout = 0  # where the image before was found
    prefix, names = _inside(places.folders[layout], index)
    for row, (image_id, file_name) in enumerate(images):
        if file_name in names:  # nearly always, and fast: there are sets of millions of images
            paths.append(prefix + file_name)
            continue
        if file_name:
            usual = os.path.join(places.folders[layout], file_name)
            if index.has(usual):
                paths.append(usual)
                continue
        exact = places.exact(image_id, file_name)
        order = [layout, *range(len(exact))] if layout < len(exact) else range(len(exact))
        found = next((i for i in order if index.has(exact[i])), None)
        if found is not None:
            if file_name and found != layout:
                layout = found
                prefix, names = _inside(places.folders[layout], index)
            paths.append(exact[found])
            continue
        candidates = places.related(file_name)
        fits = next(filter(None, (_files(tried, index) for tried in candidates)), [])
        found_as = related
        if not fits:
            fits = next(filter(None, (_alike(tried, index) for tried in candidates)), [])
            found_as = similar
        if not fits:
            missing[row] = exact
        elif len(fits) > 1:
            ambiguous[row] = fits
        else:
            found_as[row] = fits[0]
        paths.append(fits[0] if fits else exact[0])
    # `C:\me\1.png` may be any `1.png` below the folders.
    unclear = [
        f"image {images[row][0]}: {images[row][1]} is {' or '.join(files)}"
        for row, files in ambiguous.items()
    ]
    place = (set_name, annotation_path, on_problem)
    _refuse(unclear, "may be one of several files", *place)
    for kind, rows in ((RELATED_PATH, related), (SIMILAR_NAME, similar)):
        if rows:
            texts = [f"image {images[row][0]}: {images[row][1]} is {rows[row]}" for row in rows]
            on_problem(Problem(kind, set_name, len(rows), texts))
    shared = _shared(paths, images, [*related, *similar])
    _refuse(shared, "share a file with another image", *place)
    if missing:
        labels = (
            f"image {images[row][0]}: no file {' or '.join(map(with_reason, tried))}"
            for row, tried in missing.items()
        )
        error = _missing(list(missing.values()), len(paths), set_name, annotation_path)
        on_problem(Problem(MISSING_FILE, set_name, len(missing), labels, error))
    return paths


def _inside(folder: str, index: FileIndex) -> tuple[str, frozenset[str]]:
    """What stands before the names of files in a folder, and these names."""
    return os.path.join(folder, ""), index.names(folder)


def _files(paths: Sequence[str], index: FileIndex) -> list[str]:
    """Different files among the paths."""
    return _different([path for path in paths if index.has(path)])


def _alike(paths: Sequence[str], index: FileIndex) -> list[str]:
    """Different files whose names differ from those of the paths in case or accents alone."""
    return _different([file for path in paths for file in index.similar(path)])


def _different(found: list[str]) -> list[str]:
    if len(found) < 2:
        return found
    return list({os.path.realpath(path): path for path in reversed(found)}.values())[::-1]


def _shared(
    paths: list[str], images: Sequence[tuple[FileId, str]], rows: Sequence[int]
) -> list[str]:
    """`a/1.png` and `b/1.png` may both end in one `1.png`: nobody knows whose picture it is."""
    uses = Counter(map(os.path.normpath, paths)) if rows else Counter()
    return [
        f"image {images[row][0]}: {images[row][1]} is {paths[row]}, too"
        for row in rows
        if uses[os.path.normpath(paths[row])] > 1
    ]


def _refuse(
    texts: list[str],
    problem: str,
    set_name: str,
    annotation_path: Path,
    on_problem: OnProblem,
) -> None:
    """Refuses names that do not lead to one file each; nothing for no texts."""
    if not texts:
        return
    error = DataError(
        f"{len(texts)} images of {set_name} {problem}",
        where=annotation_path,
        got="; ".join(texts[:_MISSING_SHOWN]),
        expected="a file of its own for every image, below the folder of the images",
        fix="keep the folders that the file names speak of, or name the folder with "
        "dataset.image_folder",
    )
    on_problem(Problem(DUPLICATE_NAME, set_name, len(texts), texts, error))


def _missing(tried: list[list[str]], total: int, set_name: str, annotation_path: Path) -> DataError:
    shown = ", ".join(os.path.basename(paths[0]) for paths in tried[:_MISSING_SHOWN])
    return DataError(
        f"{len(tried)} of {total} images of {set_name} are missing",
        where=annotation_path,
        got=f"no file for {shown}{', ...' if len(tried) > _MISSING_SHOWN else ''}",
        expected=" or ".join(map(with_reason, tried[0])),
        fix="put the images there, name their folder with dataset.image_folder, or remove them "
        "from the annotation file",
    )

"""Files that a set names without ending, as Pascal VOC and ImageNet do, and sizes of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sniper.data.image_header import size_of_boxes
from sniper.data.listings import FileIndex, with_reason
from sniper.data.problems import (
    BROKEN_ENTRY,
    DUPLICATE_NAME,
    MISSING_FILE,
    SIMILAR_NAME,
    UNREADABLE_FILE,
    OnProblem,
    Problem,
    first_lines,
)
from sniper.errors import DataError

logger = logging.getLogger(__name__)

_MISSING_SHOWN = 20


def find_listed_images(
    folder: Path,
    names: Sequence[str],
    usual_ending: str,
    set_name: str,
    on_problem: OnProblem,
    elsewhere: Callable[[str], list[str]] | None = None,
) -> tuple[str, ...]:
    """The image of each name: with the usual ending, or the only one with another.

    One whose name differs in case or accents alone is taken as well, and told.

    Args:
        folder: of the images.
        names: below the folder, without ending.
        usual_ending: is tried first.
        set_name: for messages.
        on_problem: hears of names that fit several files or none; when it comes back, they have
            the first one, or the one that would be the usual.
        elsewhere: files of a name that is not in its place.

    Raises:
        DataError: by default, for such names.
    """
    index = FileIndex()
    paths: list[str] = []
    missing: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}
    similar: dict[str, str] = {}
    for name in names:
        stem = os.path.join(folder, name)
        usual = stem + usual_ending
        files = [usual] if index.has(usual) else index.images(stem)
        if not files and len(alike := index.similar_images(stem)) > 0:
            files = alike
            similar[stem] = alike[0]
        if not files and elsewhere is not None:
            files = elsewhere(name)
        if not files:
            missing[name] = usual
        elif len(files) > 1:
            ambiguous[name] = files
        paths.append((files or [usual])[0])
    _tell_similar(similar, set_name, on_problem)
    if ambiguous:
        texts = [f"image {name}: {' or '.join(files)}" for name, files in ambiguous.items()]
        error = DataError(
            f"{len(texts)} images of {set_name} have several files",
            where=folder,
            got="; ".join(texts[:_MISSING_SHOWN]),
            fix="leave one of them",
        )
        on_problem(Problem(DUPLICATE_NAME, set_name, len(texts), texts, error))
    if missing:
        texts = [f"image {name}: no file {with_reason(path)}" for name, path in missing.items()]
        error = missing_error(list(missing.values()), len(names), "images", folder)
        on_problem(Problem(MISSING_FILE, set_name, len(missing), texts, error))
    return tuple(paths)


def find_listed_annotations(
    folder: Path,
    names: Sequence[str],
    ending: str,
    set_name: str,
    list_path: Path,
    on_problem: OnProblem,
) -> list[str]:
    """The annotation file of every image ("" for none), or no entry for a set without any.

    Args:
        folder: of the annotations.
        names: of the images, below the folder, without ending.
        ending: of the files.
        set_name: for messages.
        list_path: where the names come from, for messages.
        on_problem: hears of missing files, and of names that differ in case or accents.

    Raises:
        DataError: by default, where some are missing.
    """
    index = FileIndex()
    similar: dict[str, str] = {}
    paths = [_as_written(os.path.join(folder, name + ending), index, similar) for name in names]
    _tell_similar(similar, set_name, on_problem)
    missing = [path for path in paths if not index.has(path)]
    if len(missing) == len(paths):
        return []
    if missing:
        texts = [f"there is no {path}" for path in missing]
        error = missing_error(missing, len(paths), "annotation files", list_path)
        on_problem(Problem(BROKEN_ENTRY, set_name, len(missing), texts, error))
    return [path if index.has(path) else "" for path in paths]


def _as_written(path: str, index: FileIndex, similar: dict[str, str]) -> str:
    """The path, or the only file whose name differs in case or accents alone."""
    if index.has(path):
        return path
    alike = index.similar(path)
    if len(alike) != 1:
        return path
    similar[path] = alike[0]
    return alike[0]


def _tell_similar(similar: dict[str, str], set_name: str, on_problem: OnProblem) -> None:
    if similar:
        texts = [f"{name} is {file}" for name, file in similar.items()]
        on_problem(Problem(SIMILAR_NAME, set_name, len(texts), texts))


def missing_error(paths: Sequence[str], total: int, what: str, where: Path) -> DataError:
    """What is raised for files that a list names and nobody has."""
    shown = ", ".join(os.path.basename(path) for path in paths[:_MISSING_SHOWN])
    return DataError(
        f"{len(paths)} of {total} {what} are missing",
        where=where,
        got=f"no file for {shown}{', ...' if len(paths) > _MISSING_SHOWN else ''}",
        expected=with_reason(paths[0]),
        fix="put the files there, or remove the names from the list",
    )


def complete_sizes(
    sizes: np.ndarray, paths: Sequence[str], set_name: str, on_problem: OnProblem, exif: str
) -> np.ndarray:
    """(n, 2) width and height of all images; those that the annotations lack come from the files.

    Where a file does not tell either, they are 0.

    Args:
        sizes: (n, 2) as annotated, 0 where it is not said.
        paths: of the images.
        set_name: for messages.
        on_problem: hears of unreadable images.
        exif: `dataset.EXIF`: sizes are those of the picture as it is shown, or stored.
    """
    sizes = sizes.copy()
    unknown = np.flatnonzero(sizes[:, 0] == 0)
    for i in unknown.tolist():
        try:
            sizes[i] = size_of_boxes(paths[i], exif)
        except DataError as error:
            if os.path.lexists(paths[i]):  # missing ones have been reported
                texts = [f"image {paths[i]}: {first_lines(error)}"]
                on_problem(Problem(UNREADABLE_FILE, set_name, 1, texts, error))
    if len(unknown):
        logger.info("%d annotations give no size: taken from the images", len(unknown))
    return sizes

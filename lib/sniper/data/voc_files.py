"""The files of a set in the layout of Pascal VOC: its annotations and images, by their names."""

from __future__ import annotations

import os
from pathlib import Path

from sniper.data.listings import FileIndex, with_reason
from sniper.data.problems import (
    BROKEN_ENTRY,
    DUPLICATE_NAME,
    MISSING_FILE,
    SIMILAR_NAME,
    OnProblem,
    Problem,
)
from sniper.data.voc_layout import VocLayout
from sniper.errors import DataError

_MISSING_SHOWN = 20
_USUAL_ENDING = ".jpg"


def find_annotations(layout: VocLayout, names: tuple[str, ...], on_problem: OnProblem) -> list[str]:
    """The annotation file of every image ("" for none), or no entry for a set without any.

    Args:
        layout: of the set.
        names: of its images.
        on_problem: hears of missing files.

    Raises:
        DataError: by default, where some are missing.
    """
    index = FileIndex()
    similar: dict[str, str] = {}
    paths = [
        _as_written(os.path.join(layout.root, "Annotations", f"{name}.xml"), index, similar)
        for name in names
    ]
    _tell_similar(similar, layout, on_problem)
    missing = [path for path in paths if not index.has(path)]
    if len(missing) == len(paths):
        return []
    if missing:
        texts = [f"there is no {path}" for path in missing]
        error = _missing(missing, len(paths), "annotation files", layout.list_path)
        on_problem(Problem(BROKEN_ENTRY, layout.name, len(missing), texts, error))
    return [path if index.has(path) else "" for path in paths]


def find_images(
    layout: VocLayout, names: tuple[str, ...], on_problem: OnProblem
) -> tuple[str, ...]:
    """The image of each name: `.jpg` as in VOC, or the only one with another ending.

    Args:
        layout: of the set.
        names: of its images.
        on_problem: hears of missing and ambiguous files.

    Raises:
        DataError: by default, for images that are missing or have several files.
    """
    folder, index = layout.root / "JPEGImages", FileIndex()
    similar: dict[str, str] = {}
    paths: list[str] = []
    missing: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}
    for name in names:
        stem = os.path.join(folder, name)
        usual = stem + _USUAL_ENDING
        files = [usual] if index.has(usual) else index.images(stem)
        if not files and len(alike := index.similar_images(stem)) > 0:
            files = alike
            similar[stem] = alike[0]
        if not files:
            missing[name] = usual
        elif len(files) > 1:
            ambiguous[name] = files
        paths.append((files or [usual])[0])
    _tell_similar(similar, layout, on_problem)
    if ambiguous:
        texts = [f"image {name}: {' or '.join(files)}" for name, files in ambiguous.items()]
        error = DataError(
            f"{len(texts)} images of {layout.name} have several files",
            where=folder,
            got="; ".join(texts[:_MISSING_SHOWN]),
            fix="leave one of them",
        )
        on_problem(Problem(DUPLICATE_NAME, layout.name, len(texts), texts, error))
    if missing:
        texts = [f"image {name}: no file {with_reason(path)}" for name, path in missing.items()]
        error = _missing(list(missing.values()), len(names), "images", folder)
        on_problem(Problem(MISSING_FILE, layout.name, len(missing), texts, error))
    return tuple(paths)


def _missing(paths: list[str], total: int, what: str, where: Path) -> DataError:
    shown = ", ".join(os.path.basename(path) for path in paths[:_MISSING_SHOWN])
    return DataError(
        f"{len(paths)} of {total} {what} are missing",
        where=where,
        got=f"no file for {shown}{', ...' if len(paths) > _MISSING_SHOWN else ''}",
        expected=with_reason(paths[0]),
        fix="put the files there, or remove the names from the list",
    )


def _as_written(path: str, index: FileIndex, similar: dict[str, str]) -> str:
    """The path, or the only file whose name differs in case or accents alone."""
    if index.has(path):
        return path
    alike = index.similar(path)
    if len(alike) != 1:
        return path
    similar[path] = alike[0]
    return alike[0]


def _tell_similar(similar: dict[str, str], layout: VocLayout, on_problem: OnProblem) -> None:
    if similar:
        texts = [f"{name} is {file}" for name, file in similar.items()]
        on_problem(Problem(SIMILAR_NAME, layout.name, len(texts), texts))

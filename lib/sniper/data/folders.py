"""Images without annotations: folders and text lists, for prediction and for tests by eye."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.folder_walk import walk_images
from sniper.data.ids import stable_ids
from sniper.data.image_endings import IMAGE_ENDINGS, has_image_ending
from sniper.data.image_header import size_of_boxes
from sniper.data.listings import listed_path, read_class_list, read_lines
from sniper.data.orientation import AUTO
from sniper.data.problems import (
    MISSING_FILE,
    UNREADABLE_FILE,
    OnProblem,
    Problem,
    stop_at_errors,
)
from sniper.data.record import Record, image_record
from sniper.errors import DataError
from sniper.progress import Progress

logger = logging.getLogger(__name__)

LIST_ENDING = ".txt"

_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGITS = re.compile(r"(\d+)")
_THREADS = 8  # reading headers waits for the disk
_SHOWN = 100


def load_folder(
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads a folder of images, nested ones included, or a text list with one image a line.

    The set is `<dataset_path>/images/<set>`, `<dataset_path>/<set>` or `<dataset_path>/<set>.txt`,
    the first that exists. Ids are made of the images' names, so that they do not change when
    images come or go. Classes come from `<dataset_path>/classes.txt` if it exists; without it the
    set has no classes of its own.

    Args:
        dataset_path: the folder above the images.
        image_set: name of the folder or list.
        with_masks: without effect; there are no objects.
        exif: `dataset.EXIF`: sizes are those of the pictures as they are shown, or stored.
        cache_dir: without effect; nothing is parsed.
        on_problem: gets every problem; when it comes back, the image is left out.

    Raises:
        DataError: there is no such folder or list, or it has no image; by default also for images
            that are missing or unreadable (all of them are named).
    """
    root = Path(dataset_path)
    source = _find_source(root, image_set)
    paths = find_images([source], on_problem)
    base = source if source.is_dir() else source.parent
    ids = stable_ids([_name(path, base) for path in paths])
    class_names = (BACKGROUND, *(read_class_list(root) or ()))
    dataset = Dataset(
        name=f"IMAGES_{image_set}",
        image_set=image_set,
        class_names=class_names,
        category_ids=tuple(range(len(class_names))),
        records=image_records(paths, ids.tolist(), on_problem, exif),
        annotation_path=str(source),
        has_annotations=False,
    )
    logger.info("%s: %d images without annotations", dataset.name, len(dataset.records))
    return dataset


def find_images(
    sources: Iterable[str | Path], on_problem: OnProblem = stop_at_errors
) -> list[Path]:
    """All images that the sources name, each once, source by source.

    Args:
        sources: image files, folders (searched with everything below), text lists (`.txt`, one
            path a line, relative to the list) and patterns with `*`, `?` or `[...]`. The images of
            a folder or pattern come in natural order: 2.jpg before 10.jpg.
        on_problem: hears of missing files of a list; when it comes back, they are left out.

    Raises:
        DataError: a source is missing or names no image; by default also for missing files.
    """
    found: dict[str, Path] = {}
    for source in sources:
        images = list(_images_of(Path(source), on_problem))
        if not images:
            raise DataError(
                "there are no images",
                where=source,
                expected=f"files that end in {' '.join(IMAGE_ENDINGS)}",
            )
        for path in images:
            found.setdefault(os.path.normpath(path), path)
    return list(found.values())


def image_records(
    paths: Sequence[str | Path],
    ids: Sequence[int],
    on_problem: OnProblem = stop_at_errors,
    exif: str = AUTO,
) -> tuple[Record, ...]:
    """Records without objects, with the sizes of the image files.

    Args:
        paths: the images.
        ids: one of each.
        on_problem: hears of unreadable images; when it comes back, they are left out.
        exif: `dataset.EXIF`.

    Raises:
        DataError: images are unreadable; the message names all of them.
    """
    return tuple(
        image_record(path, image_id, *size)
        for path, image_id, size in zip(paths, ids, _sizes(paths, on_problem, exif))
        if size is not None
    )


def natural_key(path: str | Path) -> list[tuple]:
    """Sorting key: folder by folder, numbers by their value, letters without case."""
    return [(_text_key(part.lower()), part) for part in Path(path).parts]


def _text_key(text: str) -> list[tuple[int, int, str]]:
    # A number is never compared with a text: the first entry keeps them apart.
    parts = _DIGITS.split(text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _find_source(root: Path, image_set: str) -> Path:
    if not _SET_NAME.fullmatch(image_set):
        raise DataError(
            "a set's name may hold letters, digits, '_', '-' and '.' only",
            where="dataset.image_set or dataset.test_image_set",
            got=repr(image_set),
        )
    candidates = (root / "images" / image_set, root / image_set, root / f"{image_set}{LIST_ENDING}")
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"the set {image_set!r} is neither a folder nor a list of images",
        where=root,
        expected=" or ".join(map(str, candidates)),
        fix="check dataset.dataset_path and the set's name",
    )


def _images_of(source: Path, on_problem: OnProblem) -> Iterator[Path]:
    if source.is_dir():
        images = map(Path, walk_images(str(source), recursive=True))
        yield from sorted(images, key=lambda path: natural_key(path.relative_to(source)))
    elif source.suffix.lower() == LIST_ENDING:
        yield from _listed(source, on_problem)
    elif source.is_file():
        yield source
    elif glob.has_magic(str(source)):
        matches = (Path(match) for match in glob.glob(str(source), recursive=True))
        yield from sorted((path for path in matches if has_image_ending(path)), key=natural_key)
    else:
        raise DataError("there is no such file or folder", where=source)


def _listed(path: Path, on_problem: OnProblem) -> list[Path]:
    images = [Path(listed_path(path.parent, line)) for line in read_lines(path, "list of images")]
    missing = [f"no file {image}" for image in images if not image.is_file()]
    if missing:
        error = DataError(
            f"{len(missing)} of {len(images)} images of the list are missing",
            where=path,
            got=_join(missing),
            fix="paths are relative to the list",
        )
        on_problem(Problem(MISSING_FILE, str(path), len(missing), missing, error))
    return [image for image in images if image.is_file()]


def _name(path: Path, base: Path) -> str:
    """What the id of an image is made of: its path below the set, as every system writes it."""
    return Path(os.path.relpath(path, base)).as_posix()


def _sizes(
    paths: Sequence[str | Path], on_problem: OnProblem, exif: str
) -> list[tuple[int, int] | None]:
    """Width and height of each image; None for those that cannot be read."""
    sizes: list[tuple[int, int] | None] = []
    problems: list[str] = []
    progress = Progress("image sizes read", len(paths))
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, answer in enumerate(
            pool.map(partial(_size_or_problem, exif=exif), paths), start=1
        ):
            sizes.append(None if isinstance(answer, str) else answer)
            if isinstance(answer, str):
                problems.append(answer)
            progress.tell(done)
    if problems:
        error = DataError(
            f"{len(problems)} of {len(paths)} images cannot be read",
            got=_join(problems),
            fix="replace these files, or take them out",
        )
        on_problem(Problem(UNREADABLE_FILE, "images", len(problems), problems, error))
    return sizes


def _size_or_problem(path: str | Path, exif: str) -> tuple[int, int] | str:
    try:
        return size_of_boxes(path, exif)
    except DataError as error:
        return f"{path} ({str(error).splitlines()[0]})"


def _join(entries: list[str]) -> str:
    more = len(entries) - _SHOWN
    shown = entries[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "".join(f"\n    {entry}" for entry in shown)

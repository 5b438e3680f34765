"""What the evaluation of WIDER FACE needs: all boxes, and which of them count at each level."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.ids import id_numbers
from sniper.data.matlab import read_matlab_arrays
from sniper.data.wider_text import INVALID, WiderTable, result_name
from sniper.errors import DataError

LEVELS = ("easy", "medium", "hard")
# Every face that can be found and is not flagged.
ALL = "all"


@dataclass(frozen=True, eq=False)
class WiderTruth:
    """The n images and N faces of a set as its evaluation takes them.

    Attributes:
        names: `<event>/<name>` of each image, with or without ending.
        image_ids: (n,) int64 `Record.image_id`.
        offsets: (n + 1,) int64: image i owns the faces offsets[i]:offsets[i + 1].
        boxes: (N, 4) float64 x y width height as annotated, px.
        counted: level -> (N,) bool: faces that must be found; all others are neither right nor
            wrong. `all` is always there, `easy`, `medium` and `hard` where the set has lists.
    """

    names: tuple[str, ...]
    image_ids: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    counted: Mapping[str, np.ndarray]

    @property
    def has_lists(self) -> bool:
        """Whether there are lists of easy, medium and hard faces."""
        return LEVELS[0] in self.counted


@dataclass(frozen=True, eq=False)
class WiderLists:
    """The lists of an evaluation: which faces of an image count at each level.

    Attributes:
        source: the file or folder, for messages.
        indices: name of an image without ending -> level -> numbers of its faces, from 1.
        boxes: name -> (k, 4) float64 x y width height; None where the lists hold no boxes.
        invalid: name -> (k,) bool flags; with `boxes`.
    """

    source: Path
    indices: Mapping[str, Mapping[str, np.ndarray]]
    boxes: Mapping[str, np.ndarray] | None = None
    invalid: Mapping[str, np.ndarray] | None = None


def find_lists(root: Path, image_set: str) -> WiderLists | None:
    """The lists of a set, in a folder or up to two below it; None where there are none.

    They are the MATLAB files of the official evaluation, `wider_{easy,medium,hard}_<set>.mat`, or
    `<set>_levels.json`: `{"lists": {"<event>/<name>.jpg": {"easy": [1, 4], ...}}}`, with the
    numbers of faces in the annotation text, from 1.

    Raises:
        ConfigError: SciPy or h5py is needed and not installed.
        DataError: files are missing or broken.
    """
    files = {level: _find(root, f"wider_{level}_{image_set}.mat") for level in LEVELS}
    if any(files.values()):
        missing = [level for level, path in files.items() if path is None]
        if missing:
            raise DataError(
                "lists of the evaluation are missing",
                where=root,
                expected=", ".join(f"wider_{level}_{image_set}.mat" for level in missing),
                fix="put all three beside each other, or take the others away",
            )
        return _read_matlab({level: path for level, path in files.items() if path is not None})
    path = _find(root, f"{image_set}_levels.json")
    return None if path is None else _read_json(path)


def list_sets(root: Path) -> list[str]:
    """The sets that have MATLAB lists in a folder."""
    paths = [path for depth in _depths("wider_hard_*.mat") for path in sorted(root.glob(depth))]
    return sorted({path.stem.split("_", 2)[2] for path in paths})


def truth_of_table(table: WiderTable, lists: WiderLists | None, path: Path) -> WiderTruth:
    """The truth of an annotation text and, where there are some, its lists.

    Args:
        table: of the text.
        lists: of `find_lists`. Where they have boxes, these are taken: an image without faces has
            one box of zeros there, and its detections are wrong.
        path: the text, for messages.

    Raises:
        DataError: the lists are of other annotations.
    """
    ends = table.offsets.tolist()
    boxes = [table.boxes[start:end] for start, end in zip(ends, ends[1:])]
    invalid = table.attributes[:, INVALID] != 0
    flags = [invalid[start:end] for start, end in zip(ends, ends[1:])]
    if lists is not None and lists.boxes is not None and lists.invalid is not None:
        for place, name in enumerate(map(result_name, table.names)):
            listed = lists.boxes.get(name)
            if listed is None:
                raise _other_annotations(lists, "an image that they do not have", name, path)
            if not np.array_equal(boxes[place], listed if listed.any() else listed[:0]):
                problem = "an image with other boxes, or in another order"
                raise _other_annotations(lists, problem, name, path)
            boxes[place], flags[place] = listed, lists.invalid[name]
    return _truth(table.names, table.names, boxes, flags, lists, path)


def truth_of_lists(lists: WiderLists) -> WiderTruth:
    """The truth of MATLAB lists alone, which have the boxes.

    Raises:
        DataError: they have none.
    """
    if lists.boxes is None or lists.invalid is None:
        raise DataError(
            "these lists need the annotation text that they belong to", where=lists.source
        )
    names = tuple(lists.boxes)
    flags = [lists.invalid[name] for name in names]
    # The official images are JPEG: ids are those of the set with its annotation text.
    files = [f"{name}.jpg" for name in names]
    return _truth(names, files, list(lists.boxes.values()), flags, lists, lists.source)


def _truth(
    names: tuple[str, ...],
    files: Sequence[str],
    boxes: Sequence[np.ndarray],
    invalid: Sequence[np.ndarray],
    lists: WiderLists | None,
    path: Path,
) -> WiderTruth:
    joined = np.concatenate([np.zeros((0, 4)), *boxes])
    flags = np.concatenate([np.zeros(0, bool), *invalid])
    offsets = np.concatenate([[0], np.cumsum([len(of_image) for of_image in boxes])])
    # No detection overlaps a box without extent.
    counted = {ALL: ~flags & (joined[:, 2:] >= 1).all(axis=1)}
    if lists is not None:
        counted.update({level: np.zeros(len(joined), bool) for level in LEVELS})
        for name, start, end in zip(map(result_name, files), offsets, offsets[1:]):
            of_image = lists.indices.get(name)
            if of_image is None:
                raise _other_annotations(lists, "an image that they do not have", name, path)
            for level, rows in of_image.items():
                if ((rows < 1) | (rows > end - start)).any():
                    problem = f"a face beyond the {end - start} of an image"
                    raise _other_annotations(lists, problem, name, path)
                counted[level][start + rows - 1] = True
    return WiderTruth(names, id_numbers(files), offsets.astype(np.int64), joined, counted)


def _other_annotations(lists: WiderLists, problem: str, name: str, path: Path) -> DataError:
    return DataError(
        "the lists of the evaluation belong to other annotations",
        where=lists.source,
        got=f"{problem}: {name} of {path}",
        fix="leave the annotation text as it was published, or take the lists away: then all "
        "faces count",
    )


def _depths(pattern: str) -> tuple[str, ...]:
    return pattern, f"*/{pattern}", f"*/*/{pattern}"


def _find(root: Path, name: str) -> Path | None:
    paths = (path for depth in _depths(name) for path in sorted(root.glob(depth)))
    return next(paths, None)


def _read_matlab(files: Mapping[str, Path]) -> WiderLists:
    indices: dict[str, dict[str, np.ndarray]] = {}
    boxes: dict[str, np.ndarray] = {}
    for level, path in files.items():
        for name, (of_image, rows) in _images(path, "face_bbx_list", "gt_list").items():
            # All three lists hold the same boxes.
            of_image = of_image.astype(np.float64).reshape(-1, 4)
            if not np.array_equal(boxes.setdefault(name, of_image), of_image):
                raise DataError(
                    "the lists of the evaluation do not fit together", where=path, got=name
                )
            indices.setdefault(name, {})[level] = rows.astype(np.int64).ravel()
    path = files[LEVELS[-1]]
    flags = _images(path, "invalid_label_list")
    invalid = {name: of_image.ravel() != 0 for name, (of_image,) in flags.items()}
    for name, of_image in boxes.items():
        counts = {len(of_image), len(invalid.get(name, ()))}
        if len(counts) > 1 or indices[name].keys() != files.keys():
            raise DataError("the lists of the evaluation do not fit together", where=path, got=name)
    return WiderLists(path, indices, boxes, invalid)


def _images(path: Path, *names: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Variables of every image of a file by its name."""
    variables = read_matlab_arrays(path, ["event_list", "file_list", *names])
    images = {}
    try:
        for event, files, *values in zip(*variables.values()):
            for file, *of_image in zip(files, *values):
                if not all(isinstance(array, np.ndarray) for array in of_image):
                    raise TypeError(f"{event}/{file}: {', '.join(names)} are no arrays")
                images[f"{event}/{file}"] = tuple(of_image)
            if {len(files), *map(len, values)} != {len(files)}:
                raise ValueError(f"event {event}: cells of different lengths")
    except (TypeError, ValueError) as error:
        raise DataError(
            "this is no list of the evaluation of WIDER FACE",
            where=path,
            got=error,
            expected=f"cells event_list, file_list, {', '.join(names)}, event by event",
        ) from error
    return images


def _read_json(path: Path) -> WiderLists:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        indices = {
            result_name(name): {level: _rows(of_image[level]) for level in LEVELS}
            for name, of_image in content["lists"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "the lists of the evaluation cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected='{"lists": {"<event>/<name>.jpg": {"easy": [1], "medium": [1], "hard": [1]}}}',
        ) from error
    return WiderLists(path, indices)


def _rows(numbers: Sequence[int]) -> np.ndarray:
    rows = np.asarray(numbers)
    if rows.size and (rows.ndim != 1 or rows.dtype.kind not in "iu"):
        raise ValueError(f"{numbers!r:.60} are no numbers of faces")
    return rows.astype(np.int64).reshape(-1)

"""The 2018 proposal files: lists without image ids, in the order of a Python 2 dictionary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper import boxes as box_math
from sniper.data.dataset import Dataset
from sniper.data.legacy_pickle import read_array_list
from sniper.data.proposals import ProposalSet
from sniper.data.record import Record
from sniper.errors import DataError

logger = logging.getLogger(__name__)

# The order of the entries: as a Python 2 dict of the image ids, or as the annotation file.
PYTHON2, FILE = "python2", "file"
ORDERS = (PYTHON2, FILE)

# The second held the same boxes before NMS; where both were there, 2018 took the first.
_SUFFIXES = ("_rpn_after_nms.pkl", "_rpn.pkl")

# Boxes came from scaled images, so that rounding may push them out a little.
_SLACK_PX, _SLACK_SHARE = 2.0, 0.01
_MOST_IMAGES_WITH_BOXES_OUTSIDE = 0.01
# Proposals of any use reach an IoU of 0.5 and more with the ground truth; those of other images
# reach less than their own. From so many images on, that difference cannot be chance.
_LEAST_MEAN_IOU = 0.2
_IMAGES_FOR_COMPARISON, _MOST_COMPARED = 20, 1000


@dataclass(frozen=True)
class Fit:
    """How well proposals fit the images that they are said to belong to.

    Attributes:
        images_outside: share of images with a box beyond the image.
        own_iou: mean best IoU of the ground truth with the proposals of its image; NaN without
            ground truth.
        other_iou: the same with the proposals of another image; NaN with few images.
    """

    images_outside: float
    own_iou: float
    other_iou: float

    def problem(self) -> str | None:
        """Why the proposals cannot belong to the images; None if they can."""
        if self.images_outside > _MOST_IMAGES_WITH_BOXES_OUTSIDE:
            return f"{self.images_outside:.0%} of the images have boxes outside the image"
        if self.own_iou < _LEAST_MEAN_IOU:
            return (
                f"the mean best IoU with the ground truth is {self.own_iou:.2f}, "
                f"below {_LEAST_MEAN_IOU}"
            )
        if self.own_iou <= self.other_iou:
            return (
                f"the mean best IoU with the ground truth is {self.own_iou:.2f}, and "
                f"{self.other_iou:.2f} with that of other images"
            )
        return None


def legacy_names(set_name: str) -> tuple[str, ...]:
    """What 2018 called the proposals of a set, in the order in which they count."""
    return tuple(f"{set_name}{suffix}" for suffix in _SUFFIXES)


def find_legacy_file(folder: str | Path, set_name: str) -> Path | None:
    """The 2018 proposal file of a set in a folder, or None; that after NMS where both are there."""
    candidates = [Path(folder) / name for name in legacy_names(set_name)]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        logger.info("of %s and %s the former counts, as in 2018", found[0], found[1].name)
    return found[0] if found else None


def load_legacy_proposals(
    path: str | Path, dataset: Dataset, *, order: str | None = None
) -> ProposalSet:
    """Reads a 2018 list and gives every entry the id of its image.

    Rows with score <= 0 (the padding of the 2018 operator) and rows that are not finite are
    dropped. Files without scores (4 columns) get the score 1. NMS follows in `attach_proposals`.

    Args:
        path: `<NAME>_rpn_after_nms.pkl` or `<NAME>_rpn.pkl`.
        dataset: the whole set that the proposals were made for, as read from disk.
        order: `python2` or `file`; None takes what 2018 did: `python2` for COCO, `file` for VOC.

    Raises:
        DataError: the file is broken or asks for more than arrays, or it does not fit the set.
    """
    path = Path(path)
    order = order or (FILE if dataset.legacy_file_order else PYTHON2)
    arrays = read_array_list(path)
    records = dataset.records
    if len(arrays) != len(records):
        raise _wrong_set(path, dataset, f"it has {len(arrays)} entries for {len(records)} images")
    ids = [record.image_id for record in records]
    entry_of_image = np.arange(len(ids))
    if order == PYTHON2:
        entry_of_image[python2_dict_order(ids)] = np.arange(len(ids))
    rows = [_rows(arrays[entry], path, entry) for entry in entry_of_image.tolist()]
    fit = measure_fit(records, rows)
    if fit.problem() is not None:
        raise _wrong_set(path, dataset, f"read in the order {order!r}, {fit.problem()}")
    proposals = _as_set(dataset.name, ids, rows)
    logger.info(
        "2018 proposals %s: %d boxes of %d images, mean best IoU with the ground truth %.2f",
        *(path, len(proposals.boxes), len(ids), fit.own_iou),
    )
    return proposals


def measure_fit(records: Sequence[Record], rows: Sequence[np.ndarray]) -> Fit:
    """Compares proposals with the images and the ground truth of `records`.

    Args:
        records: the images.
        rows: per image (n, 5) float32 x1 y1 x2 y2 score, image px.
    """
    outside = sum(_reaches_outside(*pair) for pair in zip(records, rows))
    with_both = [i for i, record in enumerate(records) if record.num_gt and len(rows[i])]
    step = max(1, len(with_both) // _MOST_COMPARED)
    sample = with_both[::step]
    same: list[np.ndarray] = [_best_ious(records[i], rows[i]) for i in sample]
    other: list[np.ndarray] = []
    if len(sample) >= _IMAGES_FOR_COMPARISON:
        # Files do not name their images. In a wrong order proposals fit no better than those of any
        # other image.
        others = [*sample[1:], sample[0]]
        other = [_best_ious(records[i], rows[j]) for i, j in zip(sample, others)]
    return Fit(outside / max(len(records), 1), _mean(same), _mean(other))


def _reaches_outside(record: Record, rows: np.ndarray) -> bool:
    if len(rows) == 0:
        return False
    size = np.array([record.width, record.height], np.float64)
    slack = _SLACK_PX + _SLACK_SHARE * size
    return bool((rows[:, :2] < -slack).any() or (rows[:, 2:4] > size + slack).any())


def _best_ious(record: Record, rows: np.ndarray) -> np.ndarray:
    return box_math.iou(record.gt_boxes, rows[:, :4]).max(axis=1)


def _mean(parts: list[np.ndarray]) -> float:
    return float(np.concatenate(parts).mean()) if parts else float("nan")


def _rows(array: np.ndarray, path: Path, entry: int) -> np.ndarray:
    """The usable rows of an entry as (n, 5) float32."""
    if array.size == 0:
        return np.zeros((0, 5), np.float32)
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise DataError(
            f"entry {entry} of the 2018 proposal file has a wrong shape",
            where=path,
            got=array.shape,
            expected="(n, 5): x1 y1 x2 y2 score",
        )
    rows = array.astype(np.float32, copy=False)
    if rows.shape[1] == 4:
        rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
    usable = np.isfinite(rows).all(axis=1) & (rows[:, 4] > 0)
    return rows[usable]


def _as_set(set_name: str, ids: list[int], rows: list[np.ndarray]) -> ProposalSet:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    boxes = np.empty((offsets[-1], 4), np.float32)
    scores = np.empty(offsets[-1], np.float32)
    for start, end, of_image in zip(offsets, offsets[1:], rows):
        boxes[start:end], scores[start:end] = of_image[:, :4], of_image[:, 4]
    return ProposalSet(set_name, np.array(ids, np.int64), offsets, boxes, scores)


def _wrong_set(path: Path, dataset: Dataset, reason: str) -> DataError:
    named = next((path.name[: -len(s)] for s in _SUFFIXES if path.name.endswith(s)), path.stem)
    return DataError(
        f"the 2018 proposals of {named!r} do not fit the set {dataset.name!r}: {reason}",
        where=path,
        fix="take the file of this set, or extract the proposals again (TEST.EXTRACT_PROPOSALS); "
        "a list in the order of the annotation file: sniper convert-proposals --order file",
    )


_WORD = (1 << 64) - 1
_SMALLEST_TABLE = 8
_PERTURB_SHIFT = 5
# Up to here a full table grew to four times its entries, beyond it to twice.
_LARGE_DICT = 50_000


def python2_dict_order(keys: Sequence[int]) -> np.ndarray:
    """Positions of `keys` in the order of `dict.keys()` after inserting them one by one.

    Follows CPython 2.7 (Objects/dictobject.c): open addressing with perturbation, a table that is
    rebuilt when two thirds are used, iteration by slot.

    Args:
        keys: (n,) distinct integers of 64 bits.

    Returns:
        (n,) int64; `keys[result[0]]` came first.
    """
    hashes = [_python2_hash(int(key)) for key in keys]
    slots = [-1] * _SMALLEST_TABLE
    for position in range(len(hashes)):
        _insert(slots, hashes, position)
        used = position + 1
        if 3 * used >= 2 * len(slots):
            slots = _rebuilt(slots, hashes, used)
    return np.array([position for position in slots if position >= 0], np.int64)


def _python2_hash(key: int) -> int:
    """Hash of an int as an unsigned word: the number itself, but -2 for -1."""
    return (-2 if key == -1 else key) & _WORD


def _insert(slots: list[int], hashes: list[int], position: int) -> None:
    mask = len(slots) - 1
    index = perturb = hashes[position]
    while slots[index & mask] >= 0:
        index = (5 * index + perturb + 1) & _WORD
        perturb >>= _PERTURB_SHIFT
    slots[index & mask] = position


def _rebuilt(slots: list[int], hashes: list[int], used: int) -> list[int]:
    size, at_least = _SMALLEST_TABLE, used * (2 if used > _LARGE_DICT else 4)
    while size <= at_least:
        size *= 2
    larger = [-1] * size
    for position in slots:
        if position >= 0:
            _insert(larger, hashes, position)
    return larger

"""Proposals of a region proposal network, kept with the ids of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sniper import boxes as box_math
from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.npz import read_npz, write_npz
from sniper.data.record import Record
from sniper.errors import DataError, OpsError
from sniper.native._native import multi_scale_nms
from sniper.progress import Progress

_DTYPES = {
    "image_ids": np.int64,
    "offsets": np.int64,
    "boxes": np.float32,
    "scores": np.float32,
}

# Of a detection that becomes a proposal: what a detector doubts more it will hardly claim.
LEAST_SCORE = 0.3

# Rows per call of NMS: enough to keep all threads busy, few enough to stay small in memory.
_ROWS_PER_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class ProposalSet:
    """The proposals of one image set.

    Attributes:
        set_name: name of the data set, as in `Dataset.name`.
        image_ids: (n,) int64.
        offsets: (n + 1,) int64; image i owns boxes[offsets[i]:offsets[i + 1]].
        boxes: (m, 4) float32 x1 y1 x2 y2, px of the unflipped image.
        scores: (m,) float32.

    Raises:
        DataError: the arrays do not fit together.
    """

    set_name: str
    image_ids: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise DataError(
                "the proposals are broken", where=self.set_name or "a proposal set", got=problem
            )

    @cached_property
    def _position(self) -> dict[int, int]:
        return {image_id: i for i, image_id in enumerate(self.image_ids.tolist())}

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._position

    def for_image(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (k, 4) and scores (k,) of an image, views.

        Raises:
            DataError: the image is not in the set.
        """
        position = self._position.get(image_id)
        if position is None:
            raise DataError(f"image {image_id} has no proposals", where=self.set_name)
        rows = slice(self.offsets[position], self.offsets[position + 1])
        return self.boxes[rows], self.scores[rows]

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, as files hold them."""
        arrays = {name: getattr(self, name) for name in _DTYPES}
        return {**arrays, "set_name": np.array(self.set_name)}


def proposals_of_detections(
    dataset: Dataset, detections: DetectionTable, least_score: float = 0.0
) -> ProposalSet:
    """What a detector found in a set, of all classes, as proposals: negatives from its own errors.

    Args:
        dataset: the set.
        detections: of the images of `dataset`, in its order.
        least_score: detections with less are left out.
    """
    of_images = [detections[index].rows for index in range(len(dataset.records))]
    kept = [rows[rows[:, 4] >= least_score] for rows in of_images]
    # Best first, as proposal networks give them.
    rows = [image_rows[np.argsort(-image_rows[:, 4], kind="stable")] for image_rows in kept]
    joined = np.concatenate([np.zeros((0, 5), np.float32), *rows]).astype(np.float32)
    return ProposalSet(
        dataset.name,
        np.array([record.image_id for record in dataset.records], np.int64),
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        joined[:, :4],
        joined[:, 4],
    )


def _problem(proposals: ProposalSet) -> str | None:
    images, count = len(proposals.image_ids), len(proposals.boxes)
    shapes = {
        "image_ids": (images,),
        "offsets": (images + 1,),
        "boxes": (count, 4),
        "scores": (count,),
    }
    for name, shape in shapes.items():
        array = getattr(proposals, name)
        if array.shape != shape or array.dtype != _DTYPES[name]:
            expected = f"{np.dtype(_DTYPES[name])} {shape}"
            return f"{name} is {array.dtype} {array.shape}, not {expected}"
    offsets = proposals.offsets
    if offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
        return "offsets do not rise from 0 to the number of boxes"
    if len(np.unique(proposals.image_ids)) != images:
        return "an image id is used twice"
    for start in range(0, count, _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        if not (
            np.isfinite(proposals.boxes[rows]).all() and np.isfinite(proposals.scores[rows]).all()
        ):
            return "a box or a score is not finite"
    return None


def save_proposals(path: str | Path, proposals: ProposalSet) -> None:
    """Writes an NPZ file; a file that is there stays until the new one is complete.

    Raises:
        TrainingError: the file could not be written.
    """
    write_npz(path, proposals.arrays())


def load_proposals(path: str | Path) -> ProposalSet:
    """Reads a file of `save_proposals`.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        arrays = read_npz(path, [*_DTYPES, "set_name"])
    except DataError as error:
        raise DataError(
            "the proposal file cannot be read",
            where=path,
            got=error.__cause__,
            expected=f"an NPZ file with set_name, {', '.join(_DTYPES)}",
            fix="extract the proposals again (TEST.EXTRACT_PROPOSALS)",
        ) from error
    return ProposalSet(str(arrays.pop("set_name")), **arrays)


def join_proposals(
    parts: Sequence[ProposalSet], set_name: str, image_ids: Sequence[int]
) -> ProposalSet:
    """The proposals of several parts of a set, for the images in a given order.

    Raises:
        DataError: an image is in none of the parts.
    """
    part_of = {image_id: part for part in parts for image_id in part.image_ids.tolist()}
    missing = next((image_id for image_id in image_ids if image_id not in part_of), None)
    if missing is not None:
        raise DataError(f"image {missing} has no proposals", where=set_name)
    of_images = [part_of[image_id].for_image(image_id) for image_id in image_ids]
    return ProposalSet(
        set_name,
        np.array(image_ids, np.int64),
        np.cumsum([0, *(len(scores) for _, scores in of_images)], dtype=np.int64),
        np.concatenate([np.zeros((0, 4), np.float32), *(boxes for boxes, _ in of_images)]),
        np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in of_images)]),
    )


def attach_proposals(
    records: Sequence[Record],
    proposals: ProposalSet,
    *,
    set_name: str | None = None,
    nms_thresh: float = 0.7,
) -> list[Record]:
    """The records with their proposals behind the ground truth, matched by image id.

    Rows with score <= 0 (the padding of a proposal operator) or without extent are dropped, then
    a hard NMS per image keeps the rest in the order of falling scores.

    Args:
        records: of one data set; proposals of flipped records are mirrored.
        proposals: of the same data set.
        set_name: `Dataset.name` of the records; None skips the comparison of the names.
        nms_thresh: IoU above which the lower score is dropped, above 0 and at most 1.

    Raises:
        DataError: the proposals are those of another set.
        OpsError: `nms_thresh` is out of range.
    """
    if not 0 < nms_thresh <= 1:
        raise OpsError("NMS of proposals needs a threshold in (0, 1]", got=nms_thresh)
    _check_same_set(records, proposals, set_name)
    attached: list[Record] = []
    progress = Progress("proposals attached", len(records))
    for block in _blocks(records, proposals):
        attached += _attach(block, proposals, nms_thresh)
        progress.tell(len(attached))
    return attached


def _check_same_set(
    records: Sequence[Record], proposals: ProposalSet, set_name: str | None
) -> None:
    image_ids = {record.image_id for record in records}
    matching = sum(image_id in proposals for image_id in image_ids)
    if set_name in (None, proposals.set_name) and matching == len(image_ids):
        return
    raise DataError(
        f"the proposals are those of the set {proposals.set_name!r}, the records those of "
        f"{set_name or 'another set'!r}: {matching} of {len(image_ids)} image ids match",
        fix="extract the proposals for this set",
    )


def _blocks(records: Sequence[Record], proposals: ProposalSet) -> Iterator[list[Record]]:
    """Consecutive records with about `_ROWS_PER_BLOCK` proposals each."""
    block: list[Record] = []
    rows = 0
    for record in records:
        block.append(record)
        rows += len(proposals.for_image(record.image_id)[1])
        if rows >= _ROWS_PER_BLOCK:
            yield block
            block, rows = [], 0
    if block:
        yield block


def _attach(records: list[Record], proposals: ProposalSet, nms_thresh: float) -> list[Record]:
    """Records of one block with their proposals: views of a few arrays for all of them."""
    kept, image_of_row = _suppressed(records, proposals, nms_thresh)
    num_gt = np.array([record.num_gt for record in records])
    num_kept = np.bincount(image_of_row, minlength=len(records))
    starts = np.concatenate([[0], np.cumsum(num_gt + num_kept)])
    # Where the rows of all proposals go: behind the ground truth of their images.
    rank = np.arange(len(kept)) - (np.cumsum(num_kept) - num_kept)[image_of_row]
    target = starts[image_of_row] + num_gt[image_of_row] + rank
    boxes = np.empty((starts[-1], 4), np.float32)
    classes = np.zeros(starts[-1], np.int32)
    is_gt = np.ones(starts[-1], np.bool_)
    boxes[target], is_gt[target] = kept, False
    boxes[is_gt] = np.concatenate([record.gt_boxes for record in records])
    classes[is_gt] = np.concatenate([record.gt_classes for record in records])
    bounds = zip(records, starts.tolist(), starts[1:].tolist())
    return [
        replace(record, boxes=boxes[a:b], classes=classes[a:b], is_gt=is_gt[a:b])
        for record, a, b in bounds
    ]


def _suppressed(
    records: list[Record], proposals: ProposalSet, nms_thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals that NMS keeps, image by image, best first: (k, 4) float32 and (k,) their image."""
    pairs = [proposals.for_image(record.image_id) for record in records]
    counts = [len(scores) for _, scores in pairs]
    rows = np.empty((sum(counts), 5), np.float32)
    np.concatenate([boxes for boxes, _ in pairs], out=rows[:, :4])
    np.concatenate([scores for _, scores in pairs], out=rows[:, 4])
    image = np.repeat(np.arange(len(records), dtype=np.int32), counts)
    real = (rows[:, 4] > 0) & (rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])
    rows, image = rows[real], image[real]
    # One level and one class, without limits: plain NMS of many images in one threaded call.
    none = np.zeros(len(rows), np.int32)
    open_range = np.full((1, 2), -1, np.float32)
    kept, _, image = multi_scale_nms(
        rows, none, none, image, open_range, sigma=1.0, nms_threshold=nms_thresh
    )
    boxes = kept[:, :4]
    flipped = np.array([record.flipped for record in records])[image]
    widths = np.array([record.width for record in records], np.float32)[image]
    boxes[flipped] = box_math.flip(boxes[flipped], widths[flipped])
    return boxes, image

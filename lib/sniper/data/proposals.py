"""Proposals of a region proposal network, kept with the ids of their images."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sniper import boxes as box_math
from sniper.data.record import Record, with_proposals
from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.native._native import hard_nms

_DTYPES = {
    "image_ids": np.int64,
    "offsets": np.int64,
    "boxes": np.float32,
    "scores": np.float32,
}


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
        own = slice(self.offsets[position], self.offsets[position + 1])
        return self.boxes[own], self.scores[own]


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
    if not (np.isfinite(proposals.boxes).all() and np.isfinite(proposals.scores).all()):
        return "a box or a score is not finite"
    return None


def save_proposals(path: str | Path, proposals: ProposalSet) -> None:
    """Writes an NPZ file; a file that is there stays until the new one is complete.

    Raises:
        TrainingError: the file could not be written.
    """
    content = {name: getattr(proposals, name) for name in _DTYPES}
    content["set_name"] = np.array(proposals.set_name)

    # A stream, because NumPy would append ".npz" to a path that ends otherwise.
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez(stream, **content)

    atomic_write(path, write)


def load_proposals(path: str | Path) -> ProposalSet:
    """Reads a file of `save_proposals`.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _DTYPES}
            set_name = str(archive["set_name"])
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            "the proposal file cannot be read",
            where=path,
            got=error,
            expected=f"an NPZ file with set_name, {', '.join(_DTYPES)}",
            fix="extract the proposals again (TEST.EXTRACT_PROPOSALS)",
        ) from error
    return ProposalSet(set_name, **arrays)


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
        nms_thresh: IoU above which the lower score is dropped.

    Raises:
        DataError: the proposals are those of another set.
    """
    _check_same_set(records, proposals, set_name)
    return [with_proposals(record, _of_record(record, proposals, nms_thresh)) for record in records]


def _check_same_set(
    records: Sequence[Record], proposals: ProposalSet, set_name: str | None
) -> None:
    wanted = {record.image_id for record in records}
    matching = sum(image_id in proposals for image_id in wanted)
    if set_name in (None, proposals.set_name) and matching == len(wanted):
        return
    raise DataError(
        f"the proposals are those of the set {proposals.set_name!r}, the records those of "
        f"{set_name or 'another set'!r}: {matching} of {len(wanted)} image ids match",
        fix="extract the proposals for this set",
    )


def _of_record(record: Record, proposals: ProposalSet, nms_thresh: float) -> np.ndarray:
    boxes, scores = proposals.for_image(record.image_id)
    real = (scores > 0) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    boxes, scores = boxes[real], scores[real]
    dets = np.concatenate([boxes, scores[:, None]], axis=1)
    kept = boxes[hard_nms(dets, nms_thresh)]
    return box_math.flip(kept, record.width) if record.flipped else kept

"""An Open Images set as arrays: what its cache holds; boxes of tables become boxes in px."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data import account
from sniper.data.account import Intake
from sniper.data.box_problems import BORDER_SLACK_PX, AnnotatedBoxes, BoxCounts, report_boxes
from sniper.data.coco_objects import convert_boxes
from sniper.data.ids import id_numbers
from sniper.data.openimages_truth import TrueBoxes, Verified
from sniper.data.problems import OnProblem

# Tables have six decimals of a share, so that 12.34 px of a COCO file come back as 12.3401. Nobody
# draws finer than this, and rounded to it a rewritten set gives the very boxes of its origin.
_DECIMALS_PX = 2
# Boxes that are converted at a time: the steps between are float64, several for each box.
_BLOCK = 1 << 18
# Ends each text of `pack_texts`: the only character that no file name can have.
_END = "\0"


@dataclass(frozen=True, eq=False)
class SetArrays:
    """A set as its cache holds it: n images in the order of their ids, N boxes in that order.

    Attributes:
        image_ids: n texts, see `pack_texts`.
        numbers: (n,) int64 `Record.image_id`: hashing millions of texts takes long.
        paths: n paths of the files, see `pack_texts`.
        sizes: (n, 2) int64 width and height, px.
        offsets: (n + 1,) int64: image i owns the boxes offsets[i]:offsets[i + 1].
        boxes: (N, 4) float32 inclusive corners, px.
        classes: (N,) int32, 1 ... C.
        groups: (N,) bool: around several objects.
        groups_known: () bool: the table says so.
        verified_images, verified_labels, present: see `Verified`; int32.
        intake: of the boxes, see `Intake.to_array`.
    """

    image_ids: np.ndarray
    numbers: np.ndarray
    paths: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    groups_known: np.ndarray
    verified_images: np.ndarray
    verified_labels: np.ndarray
    present: np.ndarray
    intake: np.ndarray


@dataclass(frozen=True, eq=False)
class TableBoxes:
    """N boxes of a table, in its order.

    Attributes:
        images: (N,) int32 index of the image.
        labels: (N,) class index, from 0.
        corners: (N, 4) x1 y1 x2 y2.
        groups: (N,) bool; None where the table does not say.
        are_shares: corners are shares of the image's sides, else px.
    """

    images: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    groups: np.ndarray | None
    are_shares: bool


def pack_texts(texts: Iterable[str]) -> np.ndarray:
    """Texts as one array of bytes: an array of texts takes four bytes for each letter of the
    longest."""
    content = "".join(f"{text}{_END}" for text in texts)
    return np.frombuffer(content.encode("utf-8", "surrogateescape"), np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """Inverse of `pack_texts`."""
    return packed.tobytes().decode("utf-8", "surrogateescape").split(_END)[:-1]


def set_arrays(
    image_ids: Sequence[str],
    paths: Sequence[str],
    sizes: np.ndarray,
    found: TableBoxes,
    verified: Verified,
    name: str,
    on_problem: OnProblem,
) -> SetArrays:
    """Boxes in px, image by image; images without size, and boxes that cannot be, are left out.

    Args:
        image_ids: of the n images, in order.
        paths: their files.
        sizes: (n, 2) width and height, px; 0 where nobody knows.
        found: the boxes.
        verified: the labels.
        name: of the set, for messages.
        on_problem: hears of boxes that are left out or cut.
    """
    order = np.argsort(found.images, kind="stable")
    boxes, kept, odd = _converted(found, order, sizes)
    counts = _reported(
        found, order[odd], sizes, (boxes[odd], kept[odd]), image_ids, name, on_problem
    )
    groups = np.zeros(len(order), bool) if found.groups is None else found.groups[order]
    left_out = {**counts.left_out, account.CROWD.name: int(np.count_nonzero(groups & kept))}
    intake = Intake(read=len(order), left_out=left_out, remarks=counts.remarks)
    if not kept.all():
        order, boxes, groups = order[kept], boxes[kept], groups[kept]
    has_size = sizes[:, 0] > 0
    place = (np.cumsum(has_size) - 1).astype(np.int32)
    seen = has_size[verified.images]
    of_image = np.bincount(place[found.images[order]], minlength=int(has_size.sum()))
    known = np.flatnonzero(has_size).tolist()
    known_ids = [image_ids[i] for i in known]
    return SetArrays(
        image_ids=pack_texts(known_ids),
        numbers=id_numbers(known_ids),
        paths=pack_texts(paths[i] for i in known),
        sizes=sizes[has_size],
        offsets=np.concatenate([[0], np.cumsum(of_image)]).astype(np.int64),
        boxes=boxes,
        classes=(found.labels[order] + 1).astype(np.int32),
        groups=groups,
        groups_known=np.array(found.groups is not None),
        verified_images=place[verified.images[seen]],
        verified_labels=verified.labels[seen].astype(np.int32),
        present=verified.present[seen],
        intake=intake.to_array(),
    )


def _in_px(found: TableBoxes, rows: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
    """(M, 4) float64 corners and (M, 2) float64 sides of the image of each row, px."""
    sides = sizes[found.images[rows]].astype(np.float64)
    corners = found.corners[rows].astype(np.float64)
    if found.are_shares:
        corners = np.round(corners * np.tile(sides, 2), _DECIMALS_PX)
    return corners, sides


def _converted(
    found: TableBoxes, order: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 4) float32 inclusive corners, (N,) bool which are kept, and rows with something to tell.

    In the given order, block by block: all of them in float64 would take several GB.
    """
    boxes, kept = np.empty((len(order), 4), np.float32), np.empty(len(order), bool)
    odd = [np.zeros(0, np.int64)]
    for start in range(0, len(order), _BLOCK):
        rows = slice(start, start + _BLOCK)
        corners, sides = _in_px(found, order[rows], sizes)
        extents = corners[:, 2:] - corners[:, :2]
        xywh = np.concatenate([corners[:, :2], extents], axis=1)
        boxes[rows], good = convert_boxes(xywh, sides[:, 0], sides[:, 1], legacy=False)
        kept[rows] = good & (sides[:, 0] > 0)
        within = (corners[:, :2] >= -BORDER_SLACK_PX) & (corners[:, 2:] <= sides + BORDER_SLACK_PX)
        sound = kept[rows] & (within & (extents > 0)).all(axis=1)
        odd.append(start + np.flatnonzero(~sound))
    return boxes, kept, np.concatenate(odd)


def _reported(
    found: TableBoxes,
    rows: np.ndarray,
    sizes: np.ndarray,
    read_and_kept: tuple[np.ndarray, np.ndarray],
    image_ids: Sequence[str],
    name: str,
    on_problem: OnProblem,
) -> BoxCounts:
    """Reports the rows of the table that are left out or cut."""
    corners, sides = _in_px(found, rows, sizes)
    extents = corners[:, 2:] - corners[:, :2]
    owners = found.images[rows].tolist()
    read, kept = read_and_kept
    annotated = AnnotatedBoxes(
        corners=(corners[:, 0], corners[:, 1], corners[:, 2], corners[:, 3]),
        areas=extents[:, 0] * extents[:, 1],
        widths=sides[:, 0],
        heights=sides[:, 1],
        kept=kept,
        read=read,
        label=lambda row: f"image {image_ids[owners[row]]}",
    )
    return report_boxes(annotated, name, on_problem)


def truth_of(arrays: SetArrays) -> tuple[TrueBoxes, Verified]:
    """What the evaluation knows: boxes as shares of the sides, and the labels."""
    owners = np.repeat(np.arange(len(arrays.sizes)), np.diff(arrays.offsets))
    shares = arrays.boxes.astype(np.float64)
    shares[:, 2:] += 1
    shares /= np.tile(arrays.sizes[owners], 2)
    return (
        TrueBoxes(owners, arrays.classes.astype(np.int64) - 1, shares, arrays.groups),
        Verified(
            arrays.verified_images.astype(np.int64),
            arrays.verified_labels.astype(np.int64),
            arrays.present,
        ),
    )

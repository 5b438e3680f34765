"""An image set read in spite of its problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.record import Record
from sniper.errors import DataError
from sniper.tools.check.findings import Findings

# Annotations count in fractions of a px: only what is further out is worth a line.
BORDER_SLACK_PX = 1.0


@dataclass(frozen=True, eq=False)
class RawSet:
    """What could be read of an image set.

    Attributes:
        name: as in `Dataset.name`.
        source: the annotations.
        class_names: without the background.
        records: the usable images; their files may be missing.
        num_ignored: crowd regions and difficult objects.
        has_annotations: the set has ground truth.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    records: list[Record]
    num_ignored: int
    has_annotations: bool

    @property
    def num_objects(self) -> int:
        """Ground truth boxes."""
        return sum(record.num_gt for record in self.records)


@dataclass(frozen=True)
class RawBoxes:
    """Boxes as annotated: N boxes of known images.

    Attributes:
        corners: (N, 4) float64 x1 y1 x2 y2, image px, the far corner exclusive.
        areas: (N,) float64; boxes without a positive one are dropped.
        image: (N,) int64, row of the image.
        labels: N names for messages.
    """

    corners: np.ndarray
    areas: np.ndarray
    image: np.ndarray
    labels: list[str]


class Broken(ValueError):
    """An entry that cannot be used, and why."""


def try_entry(
    findings: Findings, where: str, label: str, read: Callable[[Any], Any], entry: object
) -> Any | None:
    """`read(entry)`; None, and a finding, when it is broken."""
    try:
        return read(entry)
    except KeyError as error:
        problem = f"it has no {error}"
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = str(error)
    findings.add("broken_entry", where, f"{label}: {problem}")
    return None


def check_boxes(
    findings: Findings, where: str, boxes: RawBoxes, widths: np.ndarray, heights: np.ndarray
) -> None:
    """Looks for boxes without extent, outside their image, or beyond its border.

    Args:
        findings: receives the problems.
        where: the set.
        boxes: the boxes.
        widths: (N,) width of each box's image, px.
        heights: (N,) height, px.
    """
    start, end = boxes.corners[:, :2], boxes.corners[:, 2:]
    limits = np.stack([widths, heights], axis=1).astype(np.float64)
    degenerate = (end <= start).any(axis=1) | (boxes.areas <= 0)
    outside = ~degenerate & ((start >= limits) | (end <= 0)).any(axis=1)
    slack = BORDER_SLACK_PX
    beyond = ((start < -slack) | (end > limits + slack)).any(axis=1)
    cut = ~degenerate & ~outside & beyond
    for kind, chosen in (
        ("box_degenerate", degenerate),
        ("box_outside", outside),
        ("box_cut", cut),
    ):
        for row in np.flatnonzero(chosen).tolist():
            x1, y1, x2, y2 = boxes.corners[row].tolist()
            size = f"{widths[row]}x{heights[row]}"
            text = f"{boxes.labels[row]}: x {x1:g} to {x2:g}, y {y1:g} to {y2:g} in {size} px"
            if kind == "box_degenerate" and x2 > x1 and y2 > y1:
                text += f", area {boxes.areas[row]:g}"
            findings.add(kind, where, text)


def first_lines(error: DataError) -> str:
    """A message in one line: what, and what was found."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = [line for line in lines[1:] if line.startswith(("got:", "expected:"))]
    return "; ".join([lines[0], *found])


def add_error(findings: Findings, kind: str, where: str | Path, error: DataError) -> None:
    """Takes note of what a reader of the library raised."""
    findings.add(kind, where, first_lines(error))

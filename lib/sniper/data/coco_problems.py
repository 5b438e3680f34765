"""What is to be said of the annotations of a COCO file, and their account."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sniper.data import account
from sniper.data.account import Intake
from sniper.data.box_problems import (
    AnnotatedBoxes,
    report_boxes,
    report_corners,
    report_fractions,
    report_repeated,
)
from sniper.data.coco_columns import Annotations
from sniper.data.coco_entries import EntryReader, entry_label
from sniper.data.problems import CROWD, DUPLICATE_ANNOTATION, IGNORED, ORPHAN, Problem

# A larger share of crowd regions than that (COCO: 1.2 %) is worth a line.
_MANY_CROWDS = 0.05


@dataclass(frozen=True, eq=False)
class CocoObjects:
    """The usable annotations of a file, in its order.

    Attributes:
        rows: (N,) int64, places in the file's list.
        image_index: (N,) int64, -1: not in this file's images.
        classes: (N,) int32.
        xywh: (N, 4) float64 as annotated, px.
        areas: (N,) float64 px^2, NaN where there is none.
        widths: (N,) float64 of each object's image, px.
        heights: (N,) float64, px.
        boxes: (N, 4) float32 as trained.
        crowd: (N,) bool: a crowd region.
        ignored: (N,) bool: flagged `ignore`, and no crowd region.
        keep: (N,) bool: the box can be used.
    """

    rows: np.ndarray
    image_index: np.ndarray
    classes: np.ndarray
    xywh: np.ndarray
    areas: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    keep: np.ndarray

    @property
    def is_object(self) -> np.ndarray:
        """(N,) bool: listed with its image, and to be learned unless its box is no good."""
        return (self.image_index >= 0) & ~self.crowd & ~self.ignored


def report_annotations(
    annotations: Annotations,
    objects: CocoObjects,
    names: list[str],
    reader: EntryReader,
    *,
    legacy_boxes: bool,
) -> Intake:
    """Reports all that training leaves out or changes, and counts it.

    Args:
        annotations: those of the file.
        objects: those of them that can be read.
        names: of the images.
        reader: who is told.
        legacy_boxes: boxes were read by the rules of 2018.
    """

    def label(place: int) -> str:
        row = int(objects.rows[place])
        image = objects.image_index[place]
        where = f" of {names[image]}" if image >= 0 else ""
        return f"{entry_label('annotation', annotations[row], row)}{where}"

    _report_ids(annotations, objects, reader)
    _report_flags(objects, label, reader)
    places = np.flatnonzero(objects.is_object)
    boxes = _annotated(objects, places, label, legacy_boxes)
    where, path, on_problem = reader.where, reader.path, reader.on_problem
    given = np.isfinite(objects.areas[places])
    of_another_kind = report_fractions(boxes, where, path, on_problem) or report_corners(
        boxes, given, where, path, on_problem
    )
    # One cause: all that is odd about such boxes follows from it.
    counts = report_boxes(boxes, where, _silent if of_another_kind else on_problem)
    owners = np.column_stack([objects.image_index[places], objects.classes[places]])
    repeated = report_repeated(boxes, owners, reader.where, reader.on_problem)
    listed = objects.image_index >= 0
    return Intake(
        read=len(annotations),
        left_out={
            account.BROKEN.name: len(annotations) - len(objects.rows),
            account.ORPHAN.name: int(np.count_nonzero(~listed)),
            account.CROWD.name: int(np.count_nonzero(listed & objects.crowd)),
            account.IGNORED.name: int(np.count_nonzero(listed & objects.ignored)),
            **counts.left_out,
        },
        remarks={account.REPEATED.name: repeated, **counts.remarks},
    )


def _silent(problem: Problem) -> None:
    """Takes no note of it."""


def _annotated(
    objects: CocoObjects, places: np.ndarray, label: Callable[[int], str], legacy_boxes: bool
) -> AnnotatedBoxes:
    x, y, width, height = objects.xywh[places].T
    areas = objects.areas[places]
    return AnnotatedBoxes(
        corners=(x, y, x + width, y + height),
        areas=np.where(np.isfinite(areas), areas, width * height),
        widths=objects.widths[places],
        heights=objects.heights[places],
        kept=objects.keep[places],
        read=objects.boxes[places],
        label=lambda number: label(int(places[number])),
        legacy=legacy_boxes,
        with_sides=True,
    )


def _report_ids(annotations: Annotations, objects: CocoObjects, reader: EntryReader) -> None:
    """Warns of ids that are used twice, and of annotations whose image is not listed."""
    rows = objects.rows.tolist()
    twice = [rows[place] for place in _repeated(annotations.ids(objects.rows))]
    if twice:
        texts = (entry_label("annotation", annotations[row], row) for row in twice)
        reader.on_problem(Problem(DUPLICATE_ANNOTATION, reader.where, len(twice), texts))
    orphans = objects.rows[objects.image_index < 0].tolist()
    if orphans:
        texts = (
            f"{entry_label('annotation', annotations[row], row)}: image_id "
            f"{annotations[row]['image_id']!r} is not listed"
            for row in orphans
        )
        reader.on_problem(Problem(ORPHAN, reader.where, len(orphans), texts))


def _repeated(ids: list) -> list[int]:
    """Places of ids that stood there before; None is no id."""
    with contextlib.suppress(TypeError):  # an id that is a list
        if len(set(ids)) == len(ids):
            return []
    seen: set[str] = set()
    places = []
    for place, identity in enumerate(ids):
        # Text and numbers are one id, since some tools make texts of numbers.
        if identity is not None and str(identity) in seen:
            places.append(place)
        seen.add(str(identity))
    return places


def _report_flags(objects: CocoObjects, label: Callable[[int], str], reader: EntryReader) -> None:
    """Warns of a large share of crowd regions, and of all objects flagged `ignore`."""
    listed = objects.image_index >= 0
    total = max(int(np.count_nonzero(listed)), 1)
    crowds = np.flatnonzero(listed & objects.crowd).tolist()
    ignored = np.flatnonzero(listed & objects.ignored).tolist()
    if len(crowds) <= _MANY_CROWDS * total:
        crowds = []
    for kind, places in ((CROWD, crowds), (IGNORED, ignored)):
        if places:
            texts = _shares(places, total, label)
            reader.on_problem(Problem(kind, reader.where, len(places), texts))


def _shares(places: list[int], total: int, label: Callable[[int], str]) -> Iterator[str]:
    share = f" ({len(places)} of {total} annotations: {len(places) / total:.0%})"
    for place in places:
        yield f"{label(place)}{share}"
        share = ""

"""COCO matching and accumulation: hotcoco, faster-coco-eval, or pycocotools, the reference."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from sniper.errors import ConfigError

HOTCOCO, FASTER, PYCOCOTOOLS, AUTO = "hotcoco", "faster-coco-eval", "pycocotools", "auto"
# The fastest one first: hotcoco takes columns and walks through what is there alone, the others
# want a dict for every annotation.
_BY_SPEED = (HOTCOCO, FASTER, PYCOCOTOOLS)
EVALUATORS = (AUTO, *_BY_SPEED)
# Python 3.9 has only the last one: they are imported on demand.
_MODULES = {HOTCOCO: "hotcoco", FASTER: "faster_coco_eval", PYCOCOTOOLS: "pycocotools.cocoeval"}

# What all evaluators count by default.
MAX_DETECTIONS = (1, 10, 100)
RECALLS = np.linspace(0, 1, 101)
_IOUS, _AREAS = 10, 4

_Dicts = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Columns:
    """Objects or detections as columns.

    Attributes:
        images: (n,) int64, from 1 on.
        categories: (n,) int64, from 1 on.
        boxes: (n, 4) float64 x y width height, px.
        areas: (n,) float64 px^2: what decides between small, medium and large.
        crowd: (n,) bool; None for detections.
        scores: (n,) float64, detections in the order in which equal scores count; None for objects.
        masks: compressed run lengths with their size; None for boxes.
    """

    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray | None = None
    scores: np.ndarray | None = None
    masks: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, eq=False)
class Accumulated:
    """What an evaluator counted, -1 where there is no object.

    Attributes:
        precision: (10 IoU thresholds, 101 recalls, K categories, 4 areas) float64, with the best
            hundred detections of an image.
        recall: (10, K, 4, 3) float64, with the best 1, 10 and 100.
    """

    precision: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True)
class BlockLimits:
    """How much an evaluator gets at a time.

    Attributes:
        detections: about so many.
        cells: categories times images.
        categories: each of them has some 12,000 numbers.
    """

    detections: int
    cells: int
    categories: int


# Dicts of so many detections, or of those of a category, exist at a time; and faster-coco-eval
# makes Python objects of the numbers of categories.
_OF_DICTS = BlockLimits(detections=2_500, cells=5_000, categories=40)
LIMITS = {
    HOTCOCO: BlockLimits(detections=1 << 20, cells=1 << 21, categories=100),
    FASTER: _OF_DICTS,
    PYCOCOTOOLS: _OF_DICTS,
}


def choose_evaluator(name: str = AUTO) -> str:
    """The evaluator that a name means: `auto` is the fastest that can be imported.

    Raises:
        ConfigError: there is no such evaluator, or it is not installed.
    """
    if name not in EVALUATORS:
        raise ConfigError("unknown evaluator", got=name, expected=", ".join(EVALUATORS))
    for candidate in _BY_SPEED[:-1] if name == AUTO else (name,):
        try:
            _module(candidate)
        except ImportError as error:
            if name == AUTO:
                continue
            raise ConfigError(
                f"{candidate} cannot be imported",
                got=error,
                fix=f"pip install {candidate}, or use {PYCOCOTOOLS}",
            ) from error
        return candidate
    return PYCOCOTOOLS


def evaluator_version(name: str) -> str:
    """The name of an evaluator of `choose_evaluator` with its version, for reports."""
    return f"{name} {metadata.version(name)}"


def _module(name: str) -> Any:
    return importlib.import_module(_MODULES[name])


def accumulate(
    truth: Columns, detections: Columns, images: int, categories: int, name: str
) -> Accumulated:
    """Matches detections with objects, and counts: masks where both have them, else boxes.

    Args:
        truth: the objects.
        detections: the detections.
        images: how many there are, with annotations or not.
        categories: the same.
        name: of `choose_evaluator`.
    """
    with_columns = name == HOTCOCO
    make = _with_hotcoco if with_columns else _with_dicts
    evaluator = make(truth, detections, images, categories, name)
    # The evaluator prints its progress; the report says the same once and in order.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    counts = evaluator.eval
    # Precisions with fewer detections are asked for by nobody, and with them come 97 kB a category.
    return Accumulated(counts["precision"][..., -1].copy(), counts["recall"])


def _with_hotcoco(
    truth: Columns, detections: Columns, images: int, categories: int, name: str
) -> Any:
    module = _module(name)
    objects = module.COCO.from_arrays(
        [{"id": number, "height": 1, "width": 1} for number in range(1, images + 1)],
        [{"id": number, "name": str(number)} for number in range(1, categories + 1)],
        *(truth.images, truth.categories, truth.boxes),
        area=truth.areas,
        iscrowd=_flags(truth).astype(np.int64),
        segmentation=truth.masks,
    )
    table = np.column_stack(
        [detections.images, detections.boxes, _scores(detections), detections.categories]
    )
    found = objects.load_res(table, segmentation=detections.masks)
    # Where there are both a box and a mask the area would be that of the box.
    found.update_anns(ids=np.arange(1, len(table) + 1), area=detections.areas)
    return module.COCOeval(objects, found, iou_type="bbox" if truth.masks is None else "segm")


def _with_dicts(
    truth: Columns, detections: Columns, images: int, categories: int, name: str
) -> Any:
    module = _module(name)
    sizes = {number: {"id": number, "height": 1, "width": 1} for number in range(1, images + 1)}
    numbers = range(1, categories + 1)
    sides = (
        _AnnotationIndex(_dicts(truth), sizes, numbers),
        _AnnotationIndex(_dicts(detections), sizes, numbers),
    )
    kind = "bbox" if truth.masks is None else "segm"
    if name == FASTER:
        return module.COCOeval_faster(*sides, iouType=kind, print_function=_say_nothing)
    return module.COCOeval(*sides, iouType=kind)


def _dicts(columns: Columns) -> _Dicts:
    names = ["id", "image_id", "category_id", "bbox", "area", "iscrowd"]
    values: list[Sequence[Any]] = [
        # Ids count from 1: evaluators take a match with id 0 for none.
        range(1, len(columns.images) + 1),
        columns.images.tolist(),
        columns.categories.tolist(),
        columns.boxes.tolist(),
        columns.areas.tolist(),
        _flags(columns).astype(np.int64).tolist(),
    ]
    if columns.scores is not None:
        names.append("score")
        values.append(columns.scores.tolist())
    if columns.masks is not None:
        names.append("segmentation")
        values.append(columns.masks)
    return [dict(zip(names, row)) for row in zip(*values)]


def _flags(columns: Columns) -> np.ndarray:
    return np.zeros(len(columns.images), bool) if columns.crowd is None else columns.crowd


def _scores(columns: Columns) -> np.ndarray:
    return np.zeros(len(columns.images)) if columns.scores is None else columns.scores


class _AnnotationIndex:
    """The annotations of some images and categories, with what evaluators ask a COCO object for.

    Indexing them is the evaluators' business: every question for annotations gets all of them.
    """

    def __init__(
        self,
        annotations: _Dicts,
        images: Mapping[int, Mapping[str, int]],
        category_ids: Sequence[int],
    ) -> None:
        self._annotations = annotations
        self.imgs = images
        self._category_ids = list(category_ids)

    def getImgIds(self) -> list[int]:
        """All images."""
        return list(self.imgs)

    def getCatIds(self) -> list[int]:
        """All categories."""
        return self._category_ids

    def getAnnIds(self, **_: object) -> range:
        """As many as there are annotations."""
        return range(len(self._annotations))

    def loadAnns(self, ids: object) -> _Dicts:
        """All annotations."""
        return self._annotations

    def annToRLE(self, annotation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run lengths are all that there is."""
        return annotation["segmentation"]


def _say_nothing(*_: object) -> None:
    pass


def no_counts(categories: int) -> Accumulated:
    """Those of categories without objects, to be filled in."""
    shape = (categories, _AREAS)
    return Accumulated(
        np.full((_IOUS, len(RECALLS), *shape), -1.0),
        np.full((_IOUS, *shape, len(MAX_DETECTIONS)), -1.0),
    )

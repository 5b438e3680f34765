"""COCO matching and accumulation by pycocotools or, several times faster, faster-coco-eval."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from sniper.errors import ConfigError

PYCOCOTOOLS, FASTER, AUTO = "pycocotools", "faster-coco-eval", "auto"
EVALUATORS = (AUTO, PYCOCOTOOLS, FASTER)

# What both evaluators count by default.
MAX_DETECTIONS = (1, 10, 100)
RECALLS = np.linspace(0, 1, 101)
_IOUS, _AREAS = 10, 4

Annotation = dict[str, Any]


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


def choose_evaluator(name: str = AUTO) -> str:
    """The evaluator that a name means: `auto` is faster-coco-eval when it can be imported.

    Raises:
        ConfigError: there is no such evaluator, or it is not installed.
    """
    if name not in EVALUATORS:
        raise ConfigError("unknown evaluator", got=name, expected=", ".join(EVALUATORS))
    if name == PYCOCOTOOLS:
        return PYCOCOTOOLS
    try:
        _module(FASTER)
    except ImportError as error:
        if name == AUTO:
            return PYCOCOTOOLS
        raise ConfigError(
            "faster-coco-eval cannot be imported",
            got=error,
            fix="pip install faster-coco-eval, or use pycocotools",
        ) from error
    return FASTER


def evaluator_version(name: str) -> str:
    """The name of an evaluator of `choose_evaluator` with its version, for reports."""
    return f"{name} {metadata.version(name)}"


def _module(name: str) -> Any:
    """The module of an evaluator; Python 3.9 has no faster-coco-eval: it is imported on demand."""
    return importlib.import_module("faster_coco_eval" if name == FASTER else "pycocotools.cocoeval")


class AnnotationIndex:
    """The annotations of some images and categories, with what evaluators ask a COCO object for.

    Indexing them is the evaluators' business: every question for annotations gets all of them.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        images: Mapping[int, Mapping[str, int]],
        category_ids: Iterable[int],
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

    def loadAnns(self, ids: object) -> Sequence[Annotation]:
        """All annotations."""
        return self._annotations

    def annToRLE(self, annotation: Annotation) -> dict[str, Any]:
        """Run lengths are all that there is."""
        return annotation["segmentation"]


def accumulate(
    truth: AnnotationIndex, detections: AnnotationIndex, kind: str, name: str
) -> Accumulated:
    """Matches detections with objects, and counts.

    Args:
        truth: image_id, category_id, bbox, area, iscrowd and id > 0 of every object; for masks
            also `segmentation` in compressed run lengths.
        detections: the same with `score`, in the order in which equal scores count.
        kind: `bbox` or `segm`.
        name: of `choose_evaluator`.
    """
    module = _module(name)
    if name == FASTER:
        evaluator = module.COCOeval_faster(
            truth, detections, iouType=kind, print_function=_say_nothing
        )
    else:
        evaluator = module.COCOeval(truth, detections, iouType=kind)
    # The evaluator prints its progress; the report says the same once and in order.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    # Precisions with fewer detections are asked for by nobody, and with them come 97 kB a category.
    return Accumulated(evaluator.eval["precision"][..., -1].copy(), evaluator.eval["recall"])


def _say_nothing(*_: object) -> None:
    pass


def no_counts(categories: int) -> Accumulated:
    """Those of categories without objects, to be filled in."""
    shape = (categories, _AREAS)
    return Accumulated(
        np.full((_IOUS, len(RECALLS), *shape), -1.0),
        np.full((_IOUS, *shape, len(MAX_DETECTIONS)), -1.0),
    )

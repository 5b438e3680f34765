"""The numbers of an evaluation, for the eye and for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError
from sniper.files import atomic_write_text

_HEADLINE = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
    "AR": "ar_100",
}
_SIZES = {"small": "below 32^2 px", "medium": "32^2 to 96^2 px", "large": "above 96^2 px"}
_CLASS_COLUMNS = 2
# Of more classes a table shows the best and the worst; all of them are in the report's file.
_MOST_CLASSES, _BEST_AND_WORST = 400, 20
# Fields of a report, in the order of the evaluators' statistics.
STATISTICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)

# The IoU thresholds of the curves; the last is the mean over ten of them.
CURVE_IOUS = ("0.50", "0.75", "0.50:0.95")


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Best precision at 101 recalls, for three IoU thresholds (`CURVE_IOUS`).

    Attributes:
        recall: (101,) 0 ... 1.
        class_names: K names without the background.
        precision: (3, 101, K) float64; NaN for classes without objects.
    """

    recall: np.ndarray
    class_names: tuple[str, ...]
    precision: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(3, 101) mean over the classes that have objects; NaN where none has."""
        known = ~np.isnan(self.precision[0, 0])
        if not known.any():
            return np.full(self.precision.shape[:2], np.nan)
        return self.precision[:, :, known].mean(axis=2)

    def as_dict(self) -> dict[str, list[float | None]]:
        """The mean curves, 4 decimals, ready for JSON."""
        curves = {"recall": self.recall.round(4).tolist()}
        for name, values in zip(CURVE_IOUS, self.mean):
            curves[name] = [None if np.isnan(v) else round(v, 4) for v in values.tolist()]
        return curves


@dataclass(frozen=True)
class ClassNumbers:
    """COCO metrics of a class as fractions of 1; NaN where it has no objects.

    Attributes:
        objects: of the class in the set, crowd regions not counted.
        ap: average precision over IoU 0.50:0.95.
        ap50: at IoU 0.50.
        ar: average recall with a hundred detections per image.
    """

    objects: int
    ap: float
    ap50: float
    ar: float


@dataclass(frozen=True)
class CocoReport:
    """COCO metrics of boxes (or masks) as fractions of 1; NaN where the set has no such object.

    Attributes:
        dataset: name of the data set.
        num_images: images that were evaluated.
        ap: average precision over IoU 0.50:0.95, classes and 101 recall points.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: `ap` of objects below 32^2 px.
        ap_medium: of 32^2 to 96^2 px.
        ap_large: above 96^2 px.
        ar_1: average recall with one detection per image.
        ar_10: with ten.
        ar_100: with a hundred.
        ar_small: `ar_100` of small objects.
        ar_medium: of medium ones.
        ar_large: of large ones.
        classes: class name -> its numbers.
        num_objects: `all`, `small`, `medium`, `large` -> objects, crowd regions not counted.
        num_detections: detections that were evaluated.
        evaluator: who matched and counted, with its version.
        curves: precision over recall; None if they were not kept.
        masks: the same numbers of the masks; None if there were none to evaluate.
        masks_not_evaluated: why masks were not evaluated although they were predicted.
    """

    dataset: str
    num_images: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: Mapping[str, ClassNumbers] = field(default_factory=dict)
    num_objects: Mapping[str, int] = field(default_factory=dict)
    num_detections: int = 0
    evaluator: str = ""
    curves: PrecisionRecall | None = field(default=None, compare=False, repr=False)
    masks: CocoReport | None = None
    masks_not_evaluated: str | None = None

    @property
    def per_class(self) -> dict[str, float]:
        """Class name -> `ap` of the class."""
        return {name: numbers.ap for name, numbers in self.classes.items()}

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None; `masks` holds those of the masks."""
        values: dict[str, object] = {
            "dataset": self.dataset,
            "num_images": self.num_images,
            "num_detections": self.num_detections,
            "num_objects": dict(self.num_objects),
            "evaluator": self.evaluator,
        }
        values.update(self._numbers())
        if self.masks is not None:
            values["masks"] = self.masks._numbers()
        if self.masks_not_evaluated is not None:
            values["masks_not_evaluated"] = self.masks_not_evaluated
        return values

    def _numbers(self) -> dict[str, object]:
        numbers: dict[str, object] = {n: _for_json(getattr(self, n)) for n in STATISTICS}
        numbers["per_class"] = {name: _for_json(ap) for name, ap in self.per_class.items()}
        numbers["classes"] = {
            name: {key: _for_json(value) for key, value in asdict(of_class).items()}
            for name, of_class in self.classes.items()
        }
        if self.curves is not None:
            numbers["precision_recall"] = self.curves.as_dict()
        return numbers

    def table(self) -> str:
        """The headline numbers, then by size and by class; in percent, '-' for NaN."""
        tables = [self._table("box")]
        if self.masks is not None:
            tables.append(self.masks._table("mask"))
        if self.masks_not_evaluated is not None:
            tables.append(self.masks_not_evaluated)
        return "\n\n".join(tables)

    def _table(self, kind: str) -> str:
        head = "".join(f"{name:>7}" for name in _HEADLINE)
        values = "".join(f"{_percent(getattr(self, name)):>7}" for name in _HEADLINE.values())
        counted = f"{self.num_detections} detections, by {self.evaluator}"
        return "\n".join(
            [
                f"{self.dataset}: {self.num_images} images, {kind} AP in percent",
                *(head, values, ""),
                *self._size_lines(),
                *("", *self._class_lines()),
                *([counted] if self.evaluator else []),
            ]
        )

    def _size_lines(self) -> list[str]:
        names = [f"{size} ({limits})" for size, limits in _SIZES.items()]
        lines = [f"{'size of the objects':<24} {'number':>7} {'AP':>6} {'AR':>6}"]
        for size, name in zip(_SIZES, names):
            ap, ar = getattr(self, f"ap_{size}"), getattr(self, f"ar_{size}")
            number = self.num_objects.get(size, "-")
            lines.append(f"{name:<24} {number:>7} {_percent(ap):>6} {_percent(ar):>6}")
        recalls = " / ".join(_percent(ar) for ar in (self.ar_1, self.ar_10, self.ar_100))
        return [*lines, f"AR with 1 / 10 / 100 detections an image: {recalls}"]

    def _class_lines(self) -> list[str]:
        classes = self._shown_classes()
        width = max((len(name) for name in ("class", *classes)), default=0)
        head = f"{'class':<{width}} {'number':>7} {'AP':>6} {'AP50':>6} {'AR':>6}"
        cells = [
            f"{name:<{width}} {numbers.objects:>7} {_percent(numbers.ap):>6} "
            f"{_percent(numbers.ap50):>6} {_percent(numbers.ar):>6}"
            for name, numbers in classes.items()
        ]
        rows = math.ceil(len(cells) / _CLASS_COLUMNS)
        heads = [head] * min(_CLASS_COLUMNS, len(cells))
        lines = ["  |  ".join(line) for line in (heads, *(cells[row::rows] for row in range(rows)))]
        if len(classes) == len(self.classes):
            return lines
        have = sum(numbers.objects > 0 for numbers in self.classes.values())
        about = f"the best and the worst of {have} classes with objects, of {len(self.classes)}"
        return [f"{about}; all are in the report", *lines]

    def _shown_classes(self) -> Mapping[str, ClassNumbers]:
        """All classes; of very many the best and the worst that have objects, best first."""
        if len(self.classes) <= _MOST_CLASSES:
            return self.classes
        have = {name: one for name, one in self.classes.items() if not math.isnan(one.ap)}
        order = sorted(have, key=lambda name: -have[name].ap)
        if len(order) > 2 * _BEST_AND_WORST:
            order = [*order[:_BEST_AND_WORST], *order[-_BEST_AND_WORST:]]
        return {name: have[name] for name in order}


class Report(Protocol):
    """What every report can say; it is a dataclass of its numbers."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON."""

    def table(self) -> str:
        """The numbers for the eye."""


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _for_json(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def reason_not_evaluated(dataset: Dataset) -> str | None:
    """Why results on this set cannot be evaluated; None if they can."""
    if dataset.has_annotations:
        return None
    return f"{dataset.name} is not evaluated: {dataset.annotation_path} has no annotations"


def write_report(
    path: str | Path,
    dataset: Dataset,
    report: Report | None,
    *,
    more: Mapping[str, object] | None = None,
) -> None:
    """Writes the numbers as JSON, or the reason why there are none.

    Args:
        path: the file.
        dataset: the set.
        report: its numbers; None for sets without annotations.
        more: further entries of the file, such as `speed`: how long the detection took.

    Raises:
        TrainingError: the file could not be written.
    """
    if report is None:
        content: dict[str, object] = {
            "dataset": dataset.name,
            "not_evaluated": reason_not_evaluated(dataset),
        }
    else:
        content = report.as_dict()
    content.update(more or {})
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def settings_text(settings: Mapping[str, object]) -> str:
    """The settings of a detector in one line: `scales 1400x2000, 800x1280; NMS 0.3`."""
    words = []
    for name, value in settings.items():
        entries = value if isinstance(value, (list, tuple)) else [value]
        words.append(f"{name.replace('_', ' ')} {', '.join(map(str, entries))}")
    return "; ".join(words)


def check_shape(dataset: Dataset, table: DetectionTable) -> None:
    """Compares the number of images and the classes.

    Raises:
        DataError: they are not those of the data set.
    """
    classes = len(dataset.class_names)
    problem = None
    if len(table) != len(dataset.records):
        problem = f"detections for {len(table)} images"
    elif table.classes.max(initial=0) >= classes:
        problem = f"a class {table.classes.max()}"
    if problem is not None:
        raise DataError(
            "the detections do not fit the data set",
            where=dataset.name,
            got=problem,
            expected=f"{len(dataset.records)} images, classes 1 to {classes - 1}",
        )

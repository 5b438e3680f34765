"""The numbers of an evaluation, for the eye and for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sniper.data.dataset import Dataset
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
_CLASS_COLUMNS = 3
# Fields of a report, in the order of the evaluator's statistics.
STATISTICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


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
        per_class: class name -> `ap` of the class.
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
    per_class: Mapping[str, float] = field(default_factory=dict)
    masks: CocoReport | None = None
    masks_not_evaluated: str | None = None

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None; `masks` holds those of the masks."""
        values: dict[str, object] = {"dataset": self.dataset, "num_images": self.num_images}
        values.update(self._numbers())
        if self.masks is not None:
            values["masks"] = self.masks._numbers()
        if self.masks_not_evaluated is not None:
            values["masks_not_evaluated"] = self.masks_not_evaluated
        return values

    def _numbers(self) -> dict[str, object]:
        numbers: dict[str, object] = {n: _for_json(getattr(self, n)) for n in STATISTICS}
        numbers["per_class"] = {name: _for_json(ap) for name, ap in self.per_class.items()}
        return numbers

    def table(self) -> str:
        """The headline numbers, then the AP of every class; in percent, '-' for NaN."""
        tables = [self._table("box")]
        if self.masks is not None:
            tables.append(self.masks._table("mask"))
        if self.masks_not_evaluated is not None:
            tables.append(self.masks_not_evaluated)
        return "\n\n".join(tables)

    def _table(self, kind: str) -> str:
        head = "".join(f"{name:>7}" for name in _HEADLINE)
        values = "".join(f"{_percent(getattr(self, name)):>7}" for name in _HEADLINE.values())
        title = f"{self.dataset}: {self.num_images} images, {kind} AP in percent"
        return "\n".join([title, head, values, "", *self._class_lines()])

    def _class_lines(self) -> list[str]:
        width = max((len(name) for name in self.per_class), default=0)
        cells = [f"{name:<{width}} {_percent(ap):>6}" for name, ap in self.per_class.items()]
        rows = math.ceil(len(cells) / _CLASS_COLUMNS)
        return ["  |  ".join(cells[row::rows]) for row in range(rows)]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _for_json(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def reason_not_evaluated(dataset: Dataset) -> str | None:
    """Why results on this set cannot be evaluated; None if they can."""
    if dataset.has_annotations:
        return None
    return f"{dataset.name} is not evaluated: {dataset.annotation_path} has no annotations"


def write_report(path: str | Path, dataset: Dataset, report: CocoReport | None) -> None:
    """Writes the numbers as JSON, or the reason why there are none.

    Raises:
        TrainingError: the file could not be written.
    """
    if report is None:
        content = {"dataset": dataset.name, "not_evaluated": reason_not_evaluated(dataset)}
    else:
        content = report.as_dict()
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")

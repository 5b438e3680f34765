"""The protocol of the Open Images challenges."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.openimages_truth import ClassTree, OpenImagesTruth, read_openimages_truth
from sniper.errors import DataError
from sniper.evaluation.openimages import ClassResults, FoundBoxes, evaluate_classes
from sniper.evaluation.openimages_files import (
    detection_table,
    found_boxes,
    read_results,
    write_results,
)
from sniper.evaluation.protocol import Evaluated, EvaluationProtocol, Objects
from sniper.evaluation.report import check_shape, reason_not_evaluated

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenImagesClass:
    """Numbers of a class, with the hierarchy where there is one and group weight 1.

    Attributes:
        objects: boxes, those of classes below it and groups among them.
        detections: that were counted.
        ap: average precision as a fraction of 1; NaN where it has no objects.
    """

    objects: int
    detections: int
    ap: float


@dataclass(frozen=True)
class OpenImagesReport:
    """Mean average precisions at IoU 0.5 as fractions of 1; NaN where the set has no object.

    Attributes:
        dataset: name of the data set.
        num_images: images.
        num_boxes: boxes as annotated.
        mean_ap: with the hierarchy, a group is an object; `mAP` in JSON.
        mean_ap_no_groups: with the hierarchy, groups are no objects.
        mean_ap_flat: classes as they are annotated, a group is an object.
        mean_ap_flat_no_groups: classes as they are annotated, groups are no objects.
        has_hierarchy: whether there was one; without, the first two are the last two.
        classes: class name -> its numbers.
    """

    dataset: str
    num_images: int
    num_boxes: int
    mean_ap: float
    mean_ap_no_groups: float
    mean_ap_flat: float
    mean_ap_flat_no_groups: float
    has_hierarchy: bool
    classes: Mapping[str, OpenImagesClass]

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None."""
        return {
            "dataset": self.dataset,
            "num_images": self.num_images,
            "num_boxes": self.num_boxes,
            "mAP": _for_json(self.mean_ap),
            "mAP_group_weight_1": _for_json(self.mean_ap),
            "mAP_group_weight_0": _for_json(self.mean_ap_no_groups),
            "mAP_flat_group_weight_1": _for_json(self.mean_ap_flat),
            "mAP_flat_group_weight_0": _for_json(self.mean_ap_flat_no_groups),
            "hierarchy": self.has_hierarchy,
            "classes": {
                name: {key: _for_json(value) for key, value in asdict(of_class).items()}
                for name, of_class in self.classes.items()
            },
        }

    def table(self) -> str:
        """The means and the average precision of every class with objects, in percent."""
        known = {name: c for name, c in self.classes.items() if c.objects}
        width = max(len(name) for name in ("class", *known))
        kind = "with the hierarchy" if self.has_hierarchy else "no hierarchy"
        return "\n".join(
            [
                f"{self.dataset}: {self.num_images} images, {self.num_boxes} boxes, AP at IoU 0.5 "
                f"in percent, {kind}",
                f"mean AP: {_percent(self.mean_ap)} where a group is an object, "
                f"{_percent(self.mean_ap_no_groups)} where it is none",
                f"classes as annotated: {_percent(self.mean_ap_flat)} and "
                f"{_percent(self.mean_ap_flat_no_groups)}",
                "",
                f"{'class':<{width}} {'objects':>8} {'found':>8} {'AP':>6}",
                *(
                    f"{name:<{width}} {c.objects:>8} {c.detections:>8} {_percent(c.ap):>6}"
                    for name, c in known.items()
                ),
            ]
        )


class OpenImagesProtocol(EvaluationProtocol[OpenImagesReport]):
    """One CSV file that can be submitted; `mean_ap` decides."""

    headline = ("mean_ap", "mean_ap_no_groups")

    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes `detections_<set>_results.csv`."""
        check_shape(dataset, table)
        if table.has_masks:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        path = self.results_path(folder, dataset)
        write_results(path, dataset, found_boxes(dataset, table))
        logger.info("%d detections in %s", table.num_detections, path)

    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """The file."""
        return folder / f"detections_{dataset.image_set}_results.csv"

    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads the file back."""
        return detection_table(dataset, read_results(path, dataset).found)

    def evaluate(self, dataset: Dataset, table: DetectionTable) -> OpenImagesReport | None:
        """See `sniper.evaluation.openimages`."""
        check_shape(dataset, table)
        reason = reason_not_evaluated(dataset)
        if reason is not None:
            logger.info(reason)
            return None
        return evaluate_open_images(dataset, found_boxes(dataset, table))

    def objects(self, dataset: Dataset) -> Objects:
        """The boxes as they are annotated, in px; groups are regions of several objects."""
        boxes = _truth(dataset).boxes
        sides = np.array([(r.width, r.height) for r in dataset.records], np.float64)
        corners = boxes.boxes * np.tile(sides.reshape(-1, 2)[boxes.images], 2)
        order = np.argsort(boxes.images, kind="stable")
        return Objects(
            images=boxes.images[order],
            classes=(boxes.labels[order] + 1).astype(np.int32),
            boxes=np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]])[order],
            ignored=boxes.groups[order],
            crowd=boxes.groups[order],
        )

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """Reads the official files, see `read_openimages_truth`."""
        return read_openimages_truth(path, image_set)

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of a CSV file."""
        results = read_results(path, dataset, leave_out_unknown=leave_out_unknown)
        return Evaluated(evaluate_open_images(dataset, results.found), results.left_out)


def evaluate_open_images(dataset: Dataset, found: FoundBoxes) -> OpenImagesReport:
    """All four means, and the classes of the first.

    Args:
        dataset: a set with the truth of Open Images.
        found: detections, boxes in shares of the images' sides.

    Raises:
        DataError: the set has no such truth.
    """
    truth = _truth(dataset)
    flat = ClassTree.flat(len(dataset.class_names) - 1)

    def evaluated(tree: ClassTree) -> list[ClassResults]:
        weights = (1.0, 0.0)
        return evaluate_classes(tree, truth.boxes, truth.verified, found, group_weights=weights)

    by_annotation = evaluated(flat)
    by_tree = by_annotation if truth.tree is None else evaluated(truth.tree)
    return OpenImagesReport(
        dataset=dataset.name,
        num_images=len(dataset.records),
        num_boxes=len(truth.boxes.images),
        mean_ap=by_tree[0].mean_ap,
        mean_ap_no_groups=by_tree[1].mean_ap,
        mean_ap_flat=by_annotation[0].mean_ap,
        mean_ap_flat_no_groups=by_annotation[1].mean_ap,
        has_hierarchy=truth.tree is not None,
        classes=_of_classes(dataset, by_tree[0]),
    )


def _of_classes(dataset: Dataset, results: ClassResults) -> dict[str, OpenImagesClass]:
    objects = (results.objects + results.groups).tolist()
    rows = zip(objects, results.detections.tolist(), results.ap.tolist())
    return {name: OpenImagesClass(*row) for name, row in zip(dataset.class_names[1:], rows)}


def _truth(dataset: Dataset) -> OpenImagesTruth:
    if not isinstance(dataset.truth, OpenImagesTruth):
        raise DataError("this set has no annotations of Open Images", where=dataset.name)
    return dataset.truth


def _for_json(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"

"""The protocol of the ILSVRC detection challenge: boxes, thresholds that small objects lower."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ilsvrc import find_kit
from sniper.data.ilsvrc_set import read_ilsvrc_truth
from sniper.data.imagenet import read_imagenet_truth
from sniper.errors import DataError
from sniper.evaluation.ilsvrc import IlsvrcReport, evaluate_ilsvrc
from sniper.evaluation.ilsvrc_rows import (
    ilsvrc_rows,
    ilsvrc_truth,
    read_ilsvrc_results,
    write_ilsvrc_results,
)
from sniper.evaluation.protocol import Evaluated, EvaluationProtocol, Objects
from sniper.evaluation.report import reason_not_evaluated

logger = logging.getLogger(__name__)


class IlsvrcProtocol(EvaluationProtocol[IlsvrcReport]):
    """One text file that can be submitted; `mean_ap` decides."""

    headline = ("mean_ap", "mean_ap50")

    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes `detections_<set>_results.txt`."""
        if table.has_masks:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        rows = ilsvrc_rows(dataset, table)
        path = self.results_path(folder, dataset)
        write_ilsvrc_results(path, dataset, rows)
        left_out = table.num_detections - len(rows)
        logger.info(
            "%d detections in %s%s",
            *(len(rows), path),
            f"; {left_out} of classes that are not evaluated, or below a score of 0.001, are left "
            "out"
            if left_out
            else "",
        )

    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """The file."""
        return folder / f"detections_{dataset.image_set}_results.txt"

    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads the file back, where it tells the classes of the set from each other."""
        truth = ilsvrc_truth(dataset)
        own = np.flatnonzero(truth.evaluated_as)
        class_of = np.zeros(len(truth.class_names) + 1, np.int32)
        class_of[truth.evaluated_as[own]] = own
        if len(own) != np.count_nonzero(class_of):
            raise DataError(
                "result files of ILSVRC DET do not tell the classes of this set from each other",
                where=path,
                got=f"{len(own)} of its classes are {np.count_nonzero(class_of)} of the challenge",
                fix="`sniper evaluate --protocol ilsvrc` evaluates the file",
            )
        rows = read_ilsvrc_results(path, dataset).rows
        places = {record.image_id: index for index, record in enumerate(dataset.records)}
        images = np.array([places.get(i, -1) for i in rows.image_ids.tolist()], np.int64)
        classes = class_of[rows.classes]
        kept = np.flatnonzero((images >= 0) & (classes > 0))
        order = kept[np.lexsort((-rows.scores[kept], classes[kept], images[kept]))]
        counts = np.bincount(images[order], minlength=len(places))
        numbers = np.column_stack([rows.boxes - truth.first_px, rows.scores])[order]
        return DetectionTable(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            rows=numbers.astype(np.float32),
            classes=classes[order],
        )

    def evaluate(self, dataset: Dataset, table: DetectionTable) -> IlsvrcReport | None:
        """See `evaluate_ilsvrc`."""
        return evaluate_ilsvrc(dataset, ilsvrc_rows(dataset, table))

    def objects(self, dataset: Dataset) -> Objects:
        """The objects of the records, with the classes of the set."""
        boxes = [record.gt_boxes.astype(np.float64) for record in dataset.records]
        corners = np.concatenate([np.zeros((0, 4)), *boxes])
        nothing = np.zeros(len(corners), bool)
        return Objects(
            images=np.repeat(np.arange(len(boxes)), [len(of_image) for of_image in boxes]),
            classes=np.concatenate(
                [np.zeros(0, np.int32), *(record.gt_classes for record in dataset.records)]
            ),
            boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1),
            ignored=nothing,
            crowd=nothing,
        )

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """Reads a development kit, or a set of an ImageNet folder without one.

        See `read_ilsvrc_truth` and `read_imagenet_truth`.
        """
        if find_kit(path) is None and path.is_dir():
            return read_imagenet_truth(path, image_set)
        return read_ilsvrc_truth(path, image_set)

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of a text file."""
        results = read_ilsvrc_results(path, dataset, leave_out_unknown=leave_out_unknown)
        report = evaluate_ilsvrc(dataset, results.rows)
        if report is None:
            raise DataError(reason_not_evaluated(dataset) or "there is nothing to evaluate")
        return Evaluated(report, results.left_out)

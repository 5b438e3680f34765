"""The protocol of COCO: boxes and masks, AP over ten overlaps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from sniper.data.coco import read_coco_truth
from sniper.data.dataset import FROM_RECORDS, Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import ConfigError, DataError
from sniper.evaluation.coco import evaluate_coco, evaluate_rows
from sniper.evaluation.coco_files import (
    ResultFile,
    read_coco_results,
    read_result_rows,
    write_coco_results,
    write_image_list,
    write_upload,
)
from sniper.evaluation.coco_truth import annotations_of, run_lengths
from sniper.evaluation.protocol import CurvePlot, Evaluated, EvaluationProtocol, Objects
from sniper.evaluation.report import CocoReport

logger = logging.getLogger(__name__)


class CocoProtocol(EvaluationProtocol[CocoReport]):
    """One JSON file of detections; `ap` decides; crowd regions need not be found."""

    headline = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes `detections_<set>_results.json`; for evaluation servers also a zip.

        Sets that are no COCO file also get the ids of their images.
        """
        path = self.results_path(folder, dataset)
        count = write_coco_results(path, dataset, table)
        logger.info("%d detections in %s", count, path)
        if not dataset.has_annotations or dataset.truth == FROM_RECORDS:
            list_path = folder / f"detections_{dataset.image_set}_images.json"
            write_image_list(list_path, dataset)
            logger.info("the ids of the images in %s", list_path)
        if not dataset.has_annotations:
            logger.info("for an evaluation server: %s", write_upload(path))

    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """The JSON file."""
        return folder / f"detections_{dataset.image_set}_results.json"

    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads a JSON file of detections."""
        return read_coco_results(path, dataset)

    def evaluate(self, dataset: Dataset, table: DetectionTable) -> CocoReport | None:
        """See `evaluate_coco`."""
        return evaluate_coco(dataset, table)

    def objects(self, dataset: Dataset) -> Objects:
        """All annotations of the set's images."""
        place = {record.image_id: index for index, record in enumerate(dataset.records)}
        classes = {identity: index for index, identity in enumerate(dataset.category_ids) if index}
        entries = annotations_of(dataset, with_masks=False)
        crowd = np.array([bool(entry.get("iscrowd")) for entry in entries], bool)
        return Objects(
            images=np.array([place[entry["image_id"]] for entry in entries], np.int64),
            classes=np.array([classes[entry["category_id"]] for entry in entries], np.int32),
            boxes=np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4),
            ignored=crowd,
            crowd=crowd,
        )

    def curves(self, dataset: Dataset, report: CocoReport) -> list[CurvePlot]:
        """Precision over recall of boxes and, where there are masks, of these."""
        kinds = (("box", "", report), ("mask", "_masks", report.masks))
        return [
            CurvePlot(
                suffix,
                f"{dataset.name}: {part.num_images} images, {kind} AP {100 * part.ap:.1f}",
                part.curves,
            )
            for kind, suffix, part in kinds
            if part is not None and part.curves is not None
        ]

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """Reads an annotation file in COCO format, which is one set."""
        if image_set is not None:
            raise ConfigError(
                "an annotation file is one set",
                where="--image_set",
                got=image_set,
                fix="leave --image_set out, and name the file of the set with --truth",
            )
        return read_coco_truth(path)

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of a JSON file of detections; with masks where all of them have one."""
        results = read_result_rows(
            path, dataset, with_masks=True, leave_out_unknown=leave_out_unknown
        )
        masks = None if results.segmentations is None else _run_lengths(path, dataset, results)
        report = evaluate_rows(dataset, results.rows, None if masks is None else masks.__getitem__)
        return Evaluated(report, results.left_out)


def _run_lengths(path: Path, dataset: Dataset, results: ResultFile) -> list[bytes]:
    """Compressed run lengths of all detections of a file.

    Raises:
        DataError: a segmentation is broken or has another size than its image.
    """
    segmentations = results.segmentations or {}
    masks = []
    for image, position in zip(results.rows.images.tolist(), results.rows.rows.tolist()):
        record = dataset.records[image]
        try:
            counts = run_lengths(segmentations[position], [record.height, record.width])["counts"]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"the segmentation of entry {position} of the result file is broken: {error}",
                where=path,
                got=repr(segmentations[position])[:200],
                expected="{'size': [height, width], 'counts': ..}",
            ) from error
        masks.append(counts.encode("ascii") if isinstance(counts, str) else counts)
    return masks

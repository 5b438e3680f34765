"""The protocol of WIDER FACE: easy, medium and hard faces."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.wider import read_wider_truth
from sniper.data.wider_truth import ALL, LEVELS, WiderTruth
from sniper.errors import DataError
from sniper.evaluation.protocol import (
    CurvePlot,
    Evaluated,
    EvaluationProtocol,
    NamedCurve,
    Objects,
)
from sniper.evaluation.report import check_shape, reason_not_evaluated, settings_text
from sniper.evaluation.wider import (
    IOU_THRESHOLD,
    NUM_THRESHOLDS,
    FoundFaces,
    LevelCurve,
    evaluate_levels,
)
from sniper.evaluation.wider_files import (
    detection_table,
    detector_settings,
    found_faces,
    read_results,
    wider_truth,
    write_results,
)

logger = logging.getLogger(__name__)

_RECALLS = 101
_RULES = (
    f"IoU >= {IOU_THRESHOLD}, sides + 1 px, scores stretched to 0 ... 1, {NUM_THRESHOLDS} score "
    "thresholds, area under the curve"
)


@dataclass(frozen=True)
class WiderReport:
    """Average precisions as fractions of 1; NaN where the set has no such faces.

    Attributes:
        dataset: name of the data set.
        num_images: images.
        num_boxes: annotated boxes, those that need not be found among them.
        num_detections: of all images.
        ap: the one that decides: `hard` where the set has lists, else `all_faces`.
        easy: of the faces in the list of easy ones.
        medium: the same.
        hard: the same.
        all_faces: of all faces that are not flagged invalid; `all` in JSON.
        has_lists: whether there are lists.
        levels: level -> faces, images that have them, precision and recall.
        detections_without_boxes: detections in images without any annotated box, which the rules
            leave out.
        images_without_file: images that have no result file.
        settings: what is known of the detector (scales, NMS) from beside result files; empty where
            nothing is; None in a test, which tells it itself.
    """

    dataset: str
    num_images: int
    num_boxes: int
    num_detections: int
    ap: float
    easy: float
    medium: float
    hard: float
    all_faces: float
    has_lists: bool
    levels: Mapping[str, LevelCurve] = field(compare=False, repr=False)
    detections_without_boxes: int = 0
    images_without_file: int = 0
    settings: Mapping[str, object] | None = None

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None; curves have 101 recalls."""
        recalls = np.linspace(0, 1, _RECALLS)
        values: dict[str, object] = {
            "dataset": self.dataset,
            "num_images": self.num_images,
            "num_boxes": self.num_boxes,
            "num_detections": self.num_detections,
            "ap": _for_json(self.ap),
            **{level: _for_json(getattr(self, level)) for level in LEVELS},
            ALL: _for_json(self.all_faces),
            "decides": LEVELS[-1] if self.has_lists else ALL,
            "lists": self.has_lists,
            "levels": {
                level: {"faces": curve.faces, "images": curve.images, "ap": _for_json(curve.ap)}
                for level, curve in self.levels.items()
            },
            "detections_in_images_without_boxes": self.detections_without_boxes,
            "images_without_result_file": self.images_without_file,
            "rules": _RULES,
            "precision_recall": {
                "recall": recalls.round(4).tolist(),
                **{
                    level: precision_at(curve, recalls).round(4).tolist()
                    for level, curve in self.levels.items()
                    if curve.faces
                },
            },
        }
        return values if self.settings is None else {**values, "settings": dict(self.settings)}

    def table(self) -> str:
        """Average precision, faces and images of every level, and how it was measured."""
        lines = [
            f"{self.dataset}: {self.num_images} images, {self.num_boxes} boxes, "
            f"{self.num_detections} detections, AP in percent",
            f"{'faces':<8} {'number':>7} {'images':>7} {'AP':>7} {'recall':>7}",
        ]
        for level, curve in self.levels.items():
            recall = _percent(float(curve.recall[-1]))
            lines.append(
                f"{level:<8} {curve.faces:>7} {curve.images:>7} {_percent(curve.ap):>7} {recall:>7}"
            )
        if not self.has_lists:
            lines.append("no lists of easy, medium and hard faces: all but the invalid ones count")
        if self.detections_without_boxes:
            lines.append(
                f"{self.detections_without_boxes} detections in images without any box are not "
                "counted (rule of the protocol)"
            )
        if self.images_without_file:
            lines.append(
                f"{self.images_without_file} images have no result file: no detection counted"
            )
        lines.append(f"evaluation: {_RULES}")
        if self.settings is not None:
            lines.append(f"detector: {settings_text(self.settings) or 'scales and NMS not known'}")
        return "\n".join(lines)


class WiderProtocol(EvaluationProtocol[WiderReport]):
    """A text for each image; `ap` decides: of hard faces, or of all where there are no lists."""

    headline = ("ap", "easy", "medium", "hard", "all_faces")

    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes `detections_<set>_results/<event>/<name>.txt`."""
        if table.has_masks:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        path = self.results_path(folder, dataset)
        write_results(path, dataset, found_faces(dataset, table))
        logger.info("%d detections in %s", table.num_detections, path)

    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """The folder with the folders of the events."""
        return folder / f"detections_{dataset.image_set}_results"

    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads the texts back."""
        return detection_table(read_results(path, dataset).found)

    def evaluate(self, dataset: Dataset, table: DetectionTable) -> WiderReport | None:
        """See `sniper.evaluation.wider`."""
        check_shape(dataset, table)
        reason = reason_not_evaluated(dataset)
        if reason is not None:
            logger.info(reason)
            return None
        return evaluate_wider(dataset, found_faces(dataset, table))

    def objects(self, dataset: Dataset) -> Objects:
        """All annotated boxes; those that do not count at the level that decides are ignored."""
        truth = wider_truth(dataset)
        part = _of_set(dataset, truth)
        ignored = ~part.counted[LEVELS[-1] if truth.has_lists else ALL]
        return Objects(
            images=np.repeat(np.arange(len(dataset.records)), np.diff(part.offsets)),
            classes=np.ones(len(part.boxes), np.int32),
            boxes=part.boxes,
            ignored=ignored,
            crowd=np.zeros(len(part.boxes), bool),
        )

    def curves(self, dataset: Dataset, report: WiderReport) -> list[CurvePlot]:
        """One picture with the curves of all levels that have faces."""
        curves = [
            NamedCurve(f"{level}: AP {_percent(curve.ap)}", curve.recall, curve.precision)
            for level, curve in report.levels.items()
            if curve.faces and (level != ALL or not report.has_lists)
        ]
        if not curves:
            return []
        heading = f"{dataset.name}: {report.num_images} images, {report.num_boxes} boxes"
        return [CurvePlot("", heading, curves, settings_text(report.settings or {}))]

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """Reads annotation texts and lists of the evaluation, see `read_wider_truth`."""
        return read_wider_truth(path, image_set)

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of a folder of texts."""
        results = read_results(path, dataset, leave_out_unknown=leave_out_unknown)
        report = evaluate_wider(dataset, results.found)
        settings = detector_settings(path, dataset)
        without = results.without_file
        return Evaluated(
            replace(report, settings=settings, images_without_file=without), results.left_out
        )


def evaluate_wider(dataset: Dataset, found: FoundFaces) -> WiderReport:
    """The numbers of all levels.

    Args:
        dataset: a WIDER set, or a part of one.
        found: detections of its images.

    Raises:
        DataError: the set has no such annotations, or images of another set.
    """
    truth = _of_set(dataset, wider_truth(dataset))
    order = [level for level in (*LEVELS, ALL) if level in truth.counted]
    counted = {level: truth.counted[level] for level in order}
    levels = evaluate_levels(truth.boxes, truth.offsets, counted, found)
    aps = {level: levels[level].ap if level in levels else math.nan for level in (*LEVELS, ALL)}
    has_boxes = np.diff(truth.offsets) > 0
    return WiderReport(
        dataset=dataset.name,
        num_images=len(dataset.records),
        num_boxes=len(truth.boxes),
        num_detections=len(found.scores),
        ap=aps[LEVELS[-1] if truth.has_lists else ALL],
        easy=aps["easy"],
        medium=aps["medium"],
        hard=aps["hard"],
        all_faces=aps[ALL],
        has_lists=truth.has_lists,
        levels=levels,
        detections_without_boxes=int(np.diff(found.offsets)[~has_boxes].sum()),
    )


def precision_at(curve: LevelCurve, recalls: np.ndarray) -> np.ndarray:
    """The best precision at each recall or above it; 0 beyond the last one."""
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    places = np.searchsorted(curve.recall, recalls)
    return np.append(envelope, 0.0)[places]


def _of_set(dataset: Dataset, truth: WiderTruth) -> WiderTruth:
    """The truth of the images of a set, which may be a part of the annotated ones, in its order."""
    ids = [record.image_id for record in dataset.records]
    if ids == truth.image_ids.tolist():
        return truth
    places = {image_id: place for place, image_id in enumerate(truth.image_ids.tolist())}
    unknown = [r.original_id for r in dataset.records if r.image_id not in places]
    if unknown:
        raise DataError("an image has no annotation", where=dataset.name, got=unknown[0])
    chosen = [places[image_id] for image_id in ids]
    rows = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(*truth.offsets[i : i + 2]) for i in chosen)]
    )
    counts = np.diff(truth.offsets)[chosen]
    return WiderTruth(
        names=tuple(truth.names[place] for place in chosen),
        image_ids=truth.image_ids[chosen],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=truth.boxes[rows],
        counted={level: flags[rows] for level, flags in truth.counted.items()},
    )


def _for_json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"

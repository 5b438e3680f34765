"""Files and numbers of detections and proposals: result files, report, pictures."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sniper.data import Dataset, ProposalSet
from sniper.data.detections import DetectionTable
from sniper.data.image import read_image
from sniper.data.picture_notes import keep_quiet
from sniper.evaluation import (
    ProposalReport,
    Report,
    proposal_recall,
    protocol_of,
    reason_not_evaluated,
    write_report,
)
from sniper.evaluation.report import settings_text
from sniper.progress import LongCall
from sniper.vis.draw import draw_detections, save_image

logger = logging.getLogger(__name__)


def report_detections(
    folder: Path,
    dataset: Dataset,
    table: DetectionTable,
    speed: Mapping[str, object] | None = None,
    *,
    left_out: Mapping[str, int] | None = None,
    settings: Mapping[str, object] | None = None,
    weights_sha256: str | None = None,
) -> Report | None:
    """Writes result files and report into a folder and logs the table.

    Args:
        folder: made when missing; files of an earlier test are replaced.
        dataset: the set that was detected on.
        table: the detections of its images.
        speed: how long it took, for the report.
        left_out: detections of classes that the set does not have, by their names, for the report.
        settings: how the detector looked (scales, NMS), for the report and the log.
        weights_sha256: of the file of the detector's weights, for the report.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the detections do not fit the set, or its annotation file is broken.
        ConfigError: the set's protocol is unknown.
        TrainingError: a file could not be written.
    """
    protocol = protocol_of(dataset)
    protocol.write(folder, dataset, table)
    with LongCall("evaluation"):
        report = protocol.evaluate(dataset, table)
    if report is not None:
        # Not above: matplotlib would be imported at the start of every training.
        from sniper.vis.precision_recall import save_precision_recall

        stem = folder / f"detections_{dataset.image_set}"
        note = settings_text(settings or {})
        save_precision_recall(protocol.curves(dataset, report), stem, note)
    path = folder / f"detections_{dataset.image_set}_report.json"
    _tell(path, dataset, report, speed, left_out, settings, weights_sha256)
    return report


def report_proposals(
    path: Path,
    dataset: Dataset,
    proposals: ProposalSet,
    speed: Mapping[str, object] | None = None,
) -> ProposalReport | None:
    """Writes the recall of proposals beside their file, `<name>_report.json`, and logs it.

    Args:
        path: the proposal file.
        dataset: the set that they belong to.
        proposals: of all its images.
        speed: how long it took, for the report.

    Returns:
        The recall; None for sets without annotations.

    Raises:
        TrainingError: the file could not be written.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
    report = None if reason else proposal_recall(dataset, proposals)
    _tell(path.with_name(f"{path.stem}_report.json"), dataset, report, speed)
    return report


def _tell(
    path: Path,
    dataset: Dataset,
    report: Report | None,
    speed: Mapping[str, object] | None,
    left_out: Mapping[str, int] | None = None,
    settings: Mapping[str, object] | None = None,
    weights_sha256: str | None = None,
) -> None:
    if report is not None:
        logger.info("%s", report.table())
        if settings is not None:
            logger.info("measured with %s", settings_text(settings))
    more: dict[str, object] = {"categories": dataset.categories()}
    if left_out:
        more["left_out_of_other_classes"] = dict(left_out)
    if settings is not None:
        more["settings"] = dict(settings)
    if weights_sha256 is not None:
        more["weights_sha256"] = weights_sha256
    if speed is not None:
        more["speed"] = dict(speed)
    write_report(path, dataset, report, more=more)
    logger.info("report in %s", path)


def draw_set(folder: Path, dataset: Dataset, table: DetectionTable) -> None:
    """Writes a picture with its detections for every image of a set.

    Raises:
        DataError: an image cannot be read or written.
    """
    names = picture_names([record.image_path for record in dataset.records])
    for record, name, detections in zip(dataset.records, names, table):
        pixels = read_image(record.image_path, frame=record.frame, on_note=keep_quiet)
        save_image(folder / name, draw_detections(pixels, detections, dataset.class_names))
    logger.info("%d pictures in %s", len(names), folder)


def picture_names(paths: Sequence[str]) -> list[Path]:
    """Names of the pictures of images: their folders below the common one, `<stem>.jpg`.

    Images whose names differ in the ending only keep it: `a.png.jpg` and `a.bmp.jpg`.
    """
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    inside = [Path(os.path.relpath(path, root)) for path in paths]
    plain = [path.with_suffix(".jpg") for path in inside]
    uses = Counter(plain)
    return [
        name if uses[name] == 1 else path.with_name(f"{path.name}.jpg")
        for path, name in zip(inside, plain)
    ]

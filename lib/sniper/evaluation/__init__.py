"""Detections in, numbers out."""

from sniper.evaluation.coco import (
    Detections,
    coco_results,
    evaluate_coco,
    write_coco_results,
)
from sniper.evaluation.report import CocoReport, reason_not_evaluated, write_report

__all__ = [
    "CocoReport",
    "Detections",
    "coco_results",
    "evaluate_coco",
    "reason_not_evaluated",
    "write_coco_results",
    "write_report",
]

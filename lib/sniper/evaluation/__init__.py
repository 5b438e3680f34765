"""Detections in, numbers out."""

from sniper.evaluation.coco import coco_results, evaluate_coco, write_coco_results
from sniper.evaluation.image_list import write_image_list
from sniper.evaluation.report import CocoReport, reason_not_evaluated, write_report
from sniper.evaluation.rle import Masks, decode_mask, encode_mask
from sniper.evaluation.shape import Detections
from sniper.evaluation.voc import VocReport, average_precision, evaluate_voc
from sniper.evaluation.voc_files import VocRows, voc_rows, write_voc_results

__all__ = [
    "CocoReport",
    "Detections",
    "Masks",
    "VocReport",
    "VocRows",
    "average_precision",
    "coco_results",
    "decode_mask",
    "encode_mask",
    "evaluate_coco",
    "evaluate_voc",
    "reason_not_evaluated",
    "voc_rows",
    "write_coco_results",
    "write_image_list",
    "write_report",
    "write_voc_results",
]

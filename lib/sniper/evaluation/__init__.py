"""Detections in, numbers out."""

from sniper.data.rle import decode_mask, encode_mask
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.coco_files import (
    read_coco_results,
    write_coco_results,
    write_image_list,
    write_upload,
)
from sniper.evaluation.ilsvrc import IlsvrcReport, evaluate_ilsvrc
from sniper.evaluation.proposal_recall import ProposalReport, proposal_recall
from sniper.evaluation.protocol import CurvePlot, Evaluated, EvaluationProtocol, NamedCurve
from sniper.evaluation.protocols import (
    objects_of,
    protocol_named,
    protocol_names,
    protocol_of,
    register_protocol,
)
from sniper.evaluation.report import (
    CocoReport,
    PrecisionRecall,
    Report,
    reason_not_evaluated,
    write_report,
)
from sniper.evaluation.voc import VocReport, average_precision, evaluate_voc
from sniper.evaluation.voc_files import VocRows, read_voc_results, voc_rows, write_voc_results

__all__ = [
    "CocoReport",
    "CurvePlot",
    "Evaluated",
    "EvaluationProtocol",
    "IlsvrcReport",
    "NamedCurve",
    "PrecisionRecall",
    "ProposalReport",
    "Report",
    "VocReport",
    "VocRows",
    "average_precision",
    "decode_mask",
    "encode_mask",
    "evaluate_coco",
    "evaluate_ilsvrc",
    "evaluate_voc",
    "objects_of",
    "proposal_recall",
    "protocol_named",
    "protocol_names",
    "protocol_of",
    "read_coco_results",
    "read_voc_results",
    "reason_not_evaluated",
    "register_protocol",
    "voc_rows",
    "write_coco_results",
    "write_image_list",
    "write_report",
    "write_upload",
    "write_voc_results",
]

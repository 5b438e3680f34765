"""Where detections go wrong: causes of errors, confusions, the worst images."""

from sniper.evaluation.analysis.by_size import SizeRecall, recall_by_size
from sniper.evaluation.analysis.causes import CAUSES, Cause, Effects, ap50_of, error_effects
from sniper.evaluation.analysis.confusion import ConfusionMatrix, confusion_matrix
from sniper.evaluation.analysis.matching import Matches, match_detections
from sniper.evaluation.analysis.worst import ImageErrors, worst_images

__all__ = [
    "CAUSES",
    "Cause",
    "ConfusionMatrix",
    "Effects",
    "ImageErrors",
    "Matches",
    "SizeRecall",
    "ap50_of",
    "confusion_matrix",
    "error_effects",
    "match_detections",
    "recall_by_size",
    "worst_images",
]

"""Data sets, records, proposals and images."""

from sniper.data.dataset import BACKGROUND, Dataset, VocTruth
from sniper.data.proposals import (
    ProposalSet,
    attach_proposals,
    load_proposals,
    save_proposals,
)
from sniper.data.record import (
    Record,
    append_flipped,
    filter_trainable,
    flip_record,
    image_record,
    with_proposals,
)
from sniper.data.registry import load_dataset

__all__ = [
    "BACKGROUND",
    "Dataset",
    "ProposalSet",
    "Record",
    "VocTruth",
    "append_flipped",
    "attach_proposals",
    "filter_trainable",
    "flip_record",
    "image_record",
    "load_dataset",
    "load_proposals",
    "save_proposals",
    "with_proposals",
]

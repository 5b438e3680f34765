"""Data sets, records, proposals and images."""

from sniper.data.dataset import BACKGROUND, FROM_RECORDS, Dataset
from sniper.data.formats import format_names, load_dataset, register_format
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
from sniper.data.voc import VocTruth

__all__ = [
    "BACKGROUND",
    "FROM_RECORDS",
    "Dataset",
    "ProposalSet",
    "Record",
    "VocTruth",
    "append_flipped",
    "attach_proposals",
    "filter_trainable",
    "flip_record",
    "format_names",
    "image_record",
    "load_dataset",
    "load_proposals",
    "register_format",
    "save_proposals",
    "with_proposals",
]

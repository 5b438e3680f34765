"""Proposal extraction: RPN boxes of all test levels, for negative chips (spec: pipeline 7.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.data import Record
from sniper.data.proposals import ProposalSet
from sniper.inference.pyramid import PyramidDetector


def extract_proposals(
    detector: PyramidDetector, records: Sequence[Record], set_name: str, per_level: int = 300
) -> ProposalSet:
    """Best `per_level` proposals of every image and level, levels in order, in image px.

    Args:
        detector: built with `rpn_only=True`.
        records: images without flips.
        set_name: the data set's name, kept in the file.
        per_level: proposals kept of one level.
    """
    levels = range(len(detector.levels))
    boxes = [[np.zeros((0, 4), np.float32) for _ in levels] for _ in records]
    scores = [[np.zeros(0, np.float32) for _ in levels] for _ in records]
    for level in levels:
        for found in detector.run_level(records, level):
            kept = np.flatnonzero(found.scores > 0)[:per_level]
            boxes[found.image_index][level] = found.boxes[kept]
            scores[found.image_index][level] = found.scores[kept].astype(np.float32)
    image_boxes = [np.concatenate(rows) for rows in boxes]
    counts = [len(rows) for rows in image_boxes]
    return ProposalSet(
        set_name,
        np.array([record.image_id for record in records], np.int64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([*image_boxes, np.zeros((0, 4), np.float32)]),
        np.concatenate([*(s for rows in scores for s in rows), np.zeros(0, np.float32)]),
    )

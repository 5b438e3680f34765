"""How often images are trained so that rare classes are seen."""

from __future__ import annotations

import numpy as np

from sniper.chips.box_table import BoxTable


def repeat_factors(table: BoxTable, share: float) -> np.ndarray:
    """(R,) how often each record is trained in an epoch, on average.

    A class that a share f of the images with objects has is repeated max(1, sqrt(share / f))
    times, an image as often as its rarest class (repeat factor sampling, Gupta et al., 2019).

    Args:
        table: of the records, with their classes.
        share: classes of at least so many images are not repeated.
    """
    factors = np.ones(len(table))
    if not table.num_gt.any() or not table.classes:
        return factors
    classes = np.concatenate(table.classes)
    lengths = np.fromiter(map(len, table.classes), np.int64, len(table))
    owners = np.repeat(np.arange(len(table)), lengths)[classes > 0]  # proposals have class 0
    num_classes = int(classes.max()) + 1
    # Each class of a record once, record by record.
    owners, classes = np.divmod(np.unique(owners * num_classes + classes[classes > 0]), num_classes)
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    frequency = np.bincount(classes) / len(first)
    repeats = np.maximum(1.0, np.sqrt(share / np.maximum(frequency, np.finfo(float).tiny)))
    factors[owners[first]] = np.maximum.reduceat(repeats[classes], first)
    return factors

"""The order in which the chips of an epoch are trained."""

from __future__ import annotations

import math

import numpy as np

from sniper.chips.streams import ORDER, stream_seeds


def training_order(
    counts: np.ndarray, *, seed: int, epoch: int, batch_size: int, window: int = 0
) -> np.ndarray:
    """Every chip once, padded to a multiple of the batch size, in random order.

    The padding is drawn from all chips alike, without replacement where there are enough of them.

    With a window the records, in random order, are cut into groups of `window` records; the samples
    of a group (padding included) stand together, in random order. An image is then read once while
    its group is trained instead of once per chip. Every epoch has new groups, every chip still
    occurs once, and every place of the epoch is equally likely for every record, so the expected
    gradient of a batch is that of the full shuffle. What grows is its variance: with k chips a
    record and B samples a batch, about B (B - 1) / 2 * (k - 1) / (window * k) pairs of a batch show
    the same image, which is one pair in ten batches for B = 16, k = 5 and window = 1000, and one in
    some thousand batches for the full shuffle of a large data set. Keep the window well above the
    batch size.

    Args:
        counts: (R,) number of chips of each record.
        seed: any whole number; with `epoch` it decides the order.
        epoch: number of the epoch.
        batch_size: samples of a batch.
        window: records whose chips are shuffled together; 0: all of them (2018 behaviour).

    Returns:
        (S, 2) int32 rows of (record index, chip index); S = 0 without chips.
    """
    total = int(counts.sum())
    record = np.repeat(np.arange(len(counts)), counts)
    chip = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    samples = np.stack([record, chip], axis=1).astype(np.int32)
    if not total:
        return samples
    rng = np.random.default_rng(int(stream_seeds(seed, epoch, ORDER)))
    surplus = math.ceil(total / batch_size) * batch_size - total
    padding = rng.choice(total, surplus, replace=surplus > total)
    samples = rng.permutation(np.concatenate([samples, samples[padding]]))
    if window:
        group = rng.permutation(len(counts)) // window
        samples = samples[np.argsort(group[samples[:, 0]], kind="stable")]
    return samples

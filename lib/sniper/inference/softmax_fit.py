"""Fits a linear softmax classifier to a few hundred rows of features, without an engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.errors import TrainingError

_MOST_STEPS = 20_000
# The largest entry of the gradient at the end, of losses around 1.
_TOLERANCE = 1e-6
# The first weights of 2018 are uniform in +- this.
_FIRST_WEIGHT = 0.01


@dataclass(frozen=True)
class Schedule2018:
    """Stochastic gradient descent with momentum as in the demonstration of 2018.

    Attributes:
        lr: the learning rate; features of length 1 need a larger one.
        epochs: passes over all pictures.
        batch: pictures of an update.
        momentum: of the updates.
        seed: of the first weights and the order.
    """

    lr: float = 1e-3
    epochs: int = 250
    batch: int = 100
    momentum: float = 0.9
    seed: int = 0


def fit_softmax(
    features: np.ndarray, labels: np.ndarray, num_classes: int, *, decay: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of the mean cross entropy plus `decay` / 2 x |weights|^2, over all rows at once.

    There is one minimum, so that nothing depends on chance or on the order of the rows. `decay` is
    for features with a mean square distance of 1 from their mean: whatever their scale is, the
    result means the same.

    Args:
        features: (n, C) float32.
        labels: (n,) int, 0 ... num_classes - 1.
        num_classes: classes; each needs a row.
        decay: how much large weights cost; > 0.

    Returns:
        Weights (num_classes, C) and biases (num_classes,), float32.

    Raises:
        TrainingError: the features are not finite, or it did not converge.
    """
    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    scale = np.sqrt(np.mean((centred**2).sum(axis=1))) or 1.0
    # Weights of the minimum lie in the span of the rows: with few rows that is a small space.
    left, spread, basis = np.linalg.svd(centred / scale, full_matrices=False)
    weights, bias = _descend(left * spread, _one_hot(labels, num_classes), decay)
    weights = (weights.T @ basis) / scale  # (K, C)
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def fit_softmax_2018(
    features: np.ndarray, labels: np.ndarray, num_classes: int, schedule: Schedule2018
) -> tuple[np.ndarray, np.ndarray]:
    """The same without decay, by a number of updates instead of to the end (2018 behaviour).

    Raises:
        TrainingError: the weights are not finite at the end: the rate is too large.
    """
    rng = np.random.default_rng(schedule.seed)
    rows, targets = features.astype(np.float32), _one_hot(labels, num_classes).astype(np.float32)
    # The bias is the last column.
    rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
    shape = (num_classes, rows.shape[1])
    weights = rng.uniform(-_FIRST_WEIGHT, _FIRST_WEIGHT, shape).astype(np.float32)
    weights[:, -1] = 0
    momentum = np.zeros_like(weights)
    with np.errstate(all="ignore"):
        for _ in range(schedule.epochs):
            order = rng.permutation(len(rows))
            for start in range(0, len(rows), schedule.batch):
                # The last batch is filled up from the beginning, and always divided by its size.
                batch = np.take(order, range(start, start + schedule.batch), mode="wrap")
                error = softmax(rows[batch] @ weights.T) - targets[batch]
                gradient = error.T @ rows[batch] / schedule.batch
                momentum = schedule.momentum * momentum - np.float32(schedule.lr) * gradient
                weights = weights + momentum
    if not np.isfinite(weights).all():
        raise TrainingError(
            "the classifier did not converge", got=f"learning rate {schedule.lr:g}",
            fix="take a smaller one",
        )  # fmt: skip
    return weights[:, :-1].copy(), weights[:, -1].copy()


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores (n, K), row by row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes)[labels]


def _descend(rows: np.ndarray, targets: np.ndarray, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Nesterov's method for strongly convex functions, whose step needs no search.

    Rows are centred, so that the bias does not slow the weights down. It has no decay of its own;
    a small one, which the sum over classes of its gradient cancels, bounds what the data leave
    open.
    """
    count, width = rows.shape
    augmented = np.concatenate([rows, np.ones((count, 1))], axis=1)
    # The curvature of the cross entropy is at most half of that of its rows.
    steepest = 0.5 * np.linalg.norm(augmented, 2) ** 2 / count + decay
    share = np.sqrt(decay / steepest)
    push = (1 - share) / (1 + share)
    decays = np.full((width + 1, 1), decay)
    decays[-1] = decay * 1e-3
    here = ahead = np.zeros((width + 1, targets.shape[1]))
    for _ in range(_MOST_STEPS):
        error = softmax(augmented @ ahead) - targets
        gradient = augmented.T @ error / count + decays * ahead
        if np.abs(gradient).max() < _TOLERANCE:
            return ahead[:-1], ahead[-1]
        before, here = here, ahead - gradient / steepest
        ahead = here + push * (here - before)
    raise TrainingError(
        "the classifier did not converge",
        got=f"a gradient of {np.abs(gradient).max():.3g} after {_MOST_STEPS} steps",
        fix="take a larger --decay",
    )

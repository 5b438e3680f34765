"""The fit of a linear classifier: one minimum, whatever scale, order and number of rows."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import TrainingError
from sniper.inference.softmax_fit import Schedule2018, fit_softmax, fit_softmax_2018, softmax


@pytest.fixture(scope="module")
def clouds():
    """Three clouds that overlap: (60, 12) features, far from 0, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    centres = rng.normal(0, 1.5, (3, 12))
    return (7 + centres[labels] + rng.normal(0, 1, (60, 12))).astype(np.float32), labels


def loss(weights, biases, features, labels, decay):
    """As the definition says, with weights for rows of mean square length 1."""
    scale = np.sqrt(((features - features.mean(0)) ** 2).sum(1).mean())
    probabilities = softmax(features.astype(float) @ weights.T + biases)
    picked = probabilities[np.arange(len(labels)), labels]
    return -np.log(picked).mean() + decay / 2 * ((weights * scale) ** 2).sum()


def test_nothing_near_the_result_is_better(clouds):
    features, labels = clouds
    weights, biases = fit_softmax(features, labels, 3, decay=0.01)
    best = loss(weights.astype(float), biases.astype(float), features, labels, 0.01)
    rng = np.random.default_rng(1)
    for size in (1e-2, 1e-3):
        for _ in range(20):
            other = weights + rng.normal(0, size, weights.shape)
            others = biases - (other - weights) @ features.mean(0)
            assert loss(other, others, features, labels, 0.01) > best - 1e-6


def test_scale_and_order_make_no_difference(clouds):
    features, labels = clouds
    plain = softmax(scores(fit_softmax(features, labels, 3), features))
    scaled = features * 50 - 300
    np.testing.assert_allclose(
        softmax(scores(fit_softmax(scaled, labels, 3), scaled)), plain, atol=1e-3
    )
    order = np.random.default_rng(2).permutation(60)
    shuffled = fit_softmax(features[order], labels[order], 3)
    np.testing.assert_allclose(softmax(scores(shuffled, features)), plain, atol=1e-3)


def scores(fit, features):
    weights, biases = fit
    return features @ weights.T + biases


def test_few_rows_of_many_features_are_learnt_and_decay_softens():
    rng = np.random.default_rng(3)
    features = rng.normal(0, 1, (8, 500)).astype(np.float32)
    labels = np.arange(8) % 2
    means = []
    for decay in (1e-4, 1e-2, 1.0):
        probabilities = softmax(scores(fit_softmax(features, labels, 2, decay=decay), features))
        assert (probabilities.argmax(1) == labels).all()
        means.append(probabilities[np.arange(8), labels].mean())
    assert means[0] > means[1] > means[2] and means[0] > 0.99


def test_equal_rows_leave_the_shares_of_the_classes():
    features, labels = np.ones((4, 3), np.float32), np.array([0, 0, 0, 1])
    probabilities = softmax(scores(fit_softmax(features, labels, 2), features))
    np.testing.assert_allclose(probabilities[0], [0.75, 0.25], atol=1e-2)


def test_an_update_of_2018_follows_the_gradient(clouds):
    features, labels = clouds
    one = Schedule2018(lr=0.01, epochs=1, batch=60, momentum=0.9, seed=5)
    before = fit_softmax_2018(features, labels, 3, Schedule2018(lr=0, epochs=1, seed=5))
    after = fit_softmax_2018(features, labels, 3, one)
    assert np.abs(before[0]).max() <= 0.01 and not before[1].any()
    error = softmax(scores(before, features)) - np.eye(3)[labels]
    np.testing.assert_allclose(after[0] - before[0], -0.01 * error.T @ features / 60, atol=1e-5)
    np.testing.assert_allclose(after[1] - before[1], -0.01 * error.mean(0), atol=1e-5)


def test_the_schedule_of_2018_learns_and_a_rate_that_is_too_large_is_told(clouds):
    features, labels = clouds
    fit = fit_softmax_2018(features, labels, 3, Schedule2018(lr=0.01))
    assert (scores(fit, features).argmax(1) == labels).mean() > 0.9
    with pytest.raises(TrainingError, match="converge"):
        fit_softmax_2018(features, labels, 3, Schedule2018(lr=1e38, epochs=20))

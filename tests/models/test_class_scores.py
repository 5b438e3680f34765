"""Scores of thousands of classes, of which few are kept, against dense arrays."""

import numpy as np
import pytest

from sniper.inference.decode import ChipDetections
from sniper.inference.merge_levels import keep_confident
from sniper.models.class_scores import MIN_SCORE, objectness_of, two_factor_scores


def softmax(rng, *shape, sharpness=3.0):
    values = np.exp(sharpness * rng.standard_normal(shape)).astype(np.float32)
    return values / values.sum(axis=-1, keepdims=True)


def dense(supers, fine, super_of, id_offset):
    """(R, C + 1), number by number."""
    scores = np.zeros((len(fine), fine.shape[1] + 1), np.float32)
    scores[:, 0] = supers[:, 0]
    for klass in range(1 + id_offset, fine.shape[1] + 1):
        scores[:, klass] = fine[:, klass - 1 - id_offset] * supers[:, super_of[klass - 1]]
    return scores


@pytest.mark.parametrize("id_offset", [0, 1])
@pytest.mark.parametrize("num_supers", [1, 7])
def test_products_are_those_of_the_dense_array(num_supers, id_offset):
    rng = np.random.default_rng(num_supers)
    supers, fine = softmax(rng, 40, num_supers + 1), softmax(rng, 40, 500)
    super_of = rng.integers(1, num_supers + 1, 500).tolist()
    boxes = rng.uniform(0, 99, (40, 4)).astype(np.float32)
    sparse = two_factor_scores(supers, fine, super_of, id_offset=id_offset)
    scores = dense(supers, fine, super_of, id_offset)
    assert 100 < len(sparse.scores) < 0.5 * fine.size and sparse.scores.min() > MIN_SCORE
    np.testing.assert_array_equal(objectness_of(sparse), 1 - supers[:, 0])
    # As heads leave boxes out that are hardly objects.
    kept = rng.random(40) < 0.6
    for boxes_of, a, b in ((boxes, sparse, scores), (boxes[kept], sparse[kept], scores[kept])):
        few, all_ = (keep_confident(ChipDetections(0, 0, boxes_of, x), 0, (3, 5)) for x in (a, b))
        np.testing.assert_array_equal(few.rows, all_.rows)
        np.testing.assert_array_equal(few.classes, all_.classes)
        assert few.classes.dtype == np.int32 and len(a) == len(boxes_of)


def test_objectness_of_dense_scores_is_all_but_the_background():
    scores = np.float32([[0.25, 0.5, 0.25], [1, 0, 0], [0, 0.7, 0.9]])
    np.testing.assert_allclose(objectness_of(scores), [0.75, 0, 1])
    alone = np.float32([0.3, 0.1])  # of an RPN
    np.testing.assert_array_equal(objectness_of(alone), alone)

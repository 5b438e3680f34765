"""Detection of objects of any class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sniper.data import image_record
from sniper.errors import ConfigError
from sniper.inference.class_agnostic import ClassAgnosticExecutor
from sniper.inference.detector import Detector
from sniper.inference.executor import DetectorTraits
from sniper.inference.level import Level
from sniper.inference.merge_levels import MergeSettings
from sniper.models.class_scores import two_factor_scores
from sniper.models.parts import WindowDetections

BOX = np.float32([[10, 10, 40, 40]])


class TwoBoxes:
    """One object twice, once of each class; `scores` are those of the boxes."""

    num_devices = 1
    traits = DetectorTraits(("__background__", "a", "b"), 16, 8, has_masks=True)

    def __init__(self, scores):
        self.scores = scores

    def run(self, data, im_info):
        boxes = np.concatenate([BOX, BOX + 1])
        return [WindowDetections(boxes, self.scores, maps={"roi": data[0], "focus": data[0, 0]})]

    def identity(self):
        return {"engine": "boxes"}


class Grey:
    """Images of one size."""

    def read(self, path, reduction=1, frame=None):
        return np.zeros((64, 64, 3), np.uint8)


DENSE = np.float32([[0.1, 0.6, 0.3], [0.2, 0.1, 0.7]])
SPARSE = two_factor_scores(np.float32([[0.1, 0.9], [0.2, 0.8]]), DENSE[:, 1:], (1, 1))


@pytest.mark.parametrize("scores", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_the_score_is_that_of_any_object_and_boxes_are_merged_whatever_their_class(scores):
    executor = ClassAgnosticExecutor(TwoBoxes(scores))
    assert executor.traits.class_names == ("__background__", "object")
    (window,) = executor.run(np.zeros((1, 3, 32, 32), np.float32), np.float32([[32, 32, 1]]))
    np.testing.assert_allclose(window.scores, [[0.1, 0.9], [0.2, 0.8]], atol=1e-6)
    assert list(window.maps) == ["focus"]
    assert executor.identity() == {"engine": "boxes", "class_agnostic": True}
    with pytest.raises(ConfigError, match="no masks"):
        executor.masks([])

    nms = MergeSettings(nms_threshold=0.5, sigma=-1)
    both = [TwoBoxes(scores), executor]
    both[0].traits = replace(both[0].traits, has_masks=False)
    records = [image_record("a.png", 1, 64, 64)]
    by_class, of_any = (
        Detector(each, [Level(1.0)], nms, np.zeros(3)).detect(records, images=Grey())
        for each in both
    )
    assert by_class.classes.tolist() == [1, 2]
    np.testing.assert_allclose(of_any.rows, [[*BOX[0], 0.9]], atol=1e-5)
    assert of_any.classes.tolist() == [1]

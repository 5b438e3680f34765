"""Classes from pictures: their file, and the boxes of a detector with them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sniper.data.npz import write_npz
from sniper.errors import ConfigError, DataError
from sniper.inference.executor import DetectorTraits
from sniper.inference.new_classes import NewClassesExecutor
from sniper.inference.picture_classes import (
    BACKGROUND,
    FeatureSpec,
    learn_classes,
    load_classes,
)
from sniper.models.class_scores import ClassScores
from sniper.models.parts import WindowDetections

SPEC = FeatureSpec("key of a network", "roi", 128)
ROWS = np.float32([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]])


def learn(names=("ant", "bee"), rows=ROWS, labels=(0, 0, 1, 1), spec=SPEC):
    files = [f"{k}.jpg" for k in range(len(rows))]
    return learn_classes(names, spec, rows, np.array(labels), files)


def test_a_file_brings_everything_back(tmp_path):
    classes = learn(spec=FeatureSpec("key", "mean", 96, normalise=True))
    classes.save(tmp_path / "c.npz")
    again = load_classes(tmp_path / "c.npz")
    assert (again.names, again.spec, again.files) == (classes.names, classes.spec, classes.files)
    assert again.class_names == ("__background__", "ant", "bee")
    for name in ("weights", "biases", "features", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(classes, name))
    np.testing.assert_array_equal(again.probabilities(ROWS), classes.probabilities(ROWS))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("damage", ["pickle", "other file", "version", "shapes", "cut"])
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "c.npz"
    learn().save(path)
    arrays = dict(np.load(path))
    if damage == "pickle":
        arrays["names"] = np.array([Bomb()], object)
        np.savez(path, **arrays, allow_pickle=True)
        assert b"pytest" in pickle.dumps(Bomb()) or path.stat().st_size
    elif damage == "other file":
        write_npz(path, {"boxes": ROWS})
    elif damage == "version":
        write_npz(path, {**arrays, "about": np.array(["sniper-classes 9"])})
    elif damage == "shapes":
        write_npz(path, {**arrays, "names": np.array(["ant", "bee", "cat", "dog"])})
    else:
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError):
        load_classes(path)


def test_a_class_alone_is_told_from_a_background_only():
    with pytest.raises(ConfigError, match="--background"):
        learn(("ant",), labels=(0, 0, 0, 0))
    one = learn(("ant",), labels=(0, 0, BACKGROUND, BACKGROUND))
    assert one.probabilities(ROWS).shape == (4, 1)
    assert one.probabilities(ROWS)[:2].min() > 0.5 > one.probabilities(ROWS)[2:].max()
    with pytest.raises(DataError, match="cat"):
        learn(("ant", "bee", "cat"))


def test_rows_of_length_one_forget_how_bright_a_picture_is():
    classes = learn(spec=FeatureSpec("key", normalise=True))
    np.testing.assert_allclose(
        classes.probabilities(ROWS * 30), classes.probabilities(ROWS), atol=1e-6
    )
    assert np.isfinite(classes.probabilities(np.zeros((1, 3), np.float32))).all()


class FewBoxes:
    """Three boxes: an ant, a bee, and something that is no object."""

    num_devices = 1
    traits = DetectorTraits(("__background__", "thing"), 16, 8, has_masks=True)

    def __init__(self, scores, features):
        self.scores, self.features = scores, features

    def run(self, data, im_info):
        return [
            WindowDetections(np.zeros((3, 4), np.float32), self.scores, roi_features=self.features)
        ]

    def identity(self):
        return {"engine": "few"}


FEATURES = np.float32([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
DENSE = np.float32([[0.1, 0.9], [0.2, 0.8], [1, 0]])
SPARSE = ClassScores(
    np.array([0, 1]), np.int32([1, 1]), np.float32([0.5, 0.4]), np.float32([0.9, 0.8, 0])
)


@pytest.mark.parametrize("scores", [DENSE, SPARSE], ids=["array", "few of thousands"])
def test_the_score_is_that_of_an_object_times_that_of_the_class(scores):
    classes = learn()
    executor = NewClassesExecutor(FewBoxes(scores, FEATURES), classes)
    (window,) = executor.run(np.zeros((1, 3, 32, 32)), np.zeros((1, 3)))
    expected = np.float32([[0.9], [0.8], [0]]) * classes.probabilities(FEATURES)
    np.testing.assert_allclose(window.scores[:, 1:], expected, rtol=1e-6)
    assert window.scores[:2, 1:].argmax(1).tolist() == [0, 1]
    assert not window.scores[2, 1:].any(), "what is no object is no ant"
    np.testing.assert_allclose(window.scores.sum(1), 1, rtol=1e-6)


def test_other_classes_are_another_detector():
    first, second = learn(), learn(labels=(1, 1, 0, 0))
    executors = [NewClassesExecutor(FewBoxes(DENSE, FEATURES), c) for c in (first, second)]
    assert executors[0].identity() != executors[1].identity()
    assert executors[0].traits.class_names == first.class_names
    assert not executors[0].traits.has_masks, "masks are those of the detector's own classes"


def test_a_detector_without_features_is_refused():
    executor = NewClassesExecutor(FewBoxes(DENSE, None), learn())
    with pytest.raises(ConfigError, match="features"):
        executor.run(np.zeros((1, 3, 32, 32)), np.zeros((1, 3)))

"""Super-classes by clustering features of classes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from sniper.data.class_clusters import cluster_classes, mean_features, read_class_features
from sniper.data.classes import Classes
from sniper.data.dataset import BACKGROUND
from sniper.data.super_classes import read_super_classes, super_of
from sniper.errors import ConfigError, DataError
from sniper.tools.cluster_classes import main

NAMES = ["cat", "car", "dog", "bus", "fog"]


def write_features(path, **changes):
    """Animals lie at (0, 5), vehicles at (9, 0); two rows are cats, none is fog, one nothing."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 5], [9, 0], [0, 5], [9, 0], [0, 5]], np.float32)
    labels = np.array([0, 1, 2, 3, 0])
    rows = np.concatenate([centres + rng.normal(0, 0.1, (5, 2)), [[50, 50]]])
    arrays = {"names": np.array(NAMES), "features": rows, "labels": np.append(labels, -1)}
    np.savez(path, **(arrays | changes))
    return path


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "classes.npz")


def test_classes_that_look_alike_are_one_super_class(features, tmp_path, capsys, caplog):
    pytest.importorskip("sklearn", reason="k-means comes from scikit-learn")
    out = tmp_path / "super.json"
    flags = ["--features", str(features), "--clusters", "2", "--out", str(out)]
    assert main(flags) == 0
    # Numbered in the order of the classes; fog goes to the largest of two equal ones.
    table = json.loads(out.read_text())
    assert {tuple(members) for members in table.values()} <= {
        *(("cat", "dog", "fog"), ("cat", "dog"), ("car", "bus", "fog"), ("car", "bus"))
    }
    assert list(table) == ["0", "1"] and table["0"][0] == "cat"
    named = ("tom", "car", "fido", "double-decker", "fog")  # two have the name of their id
    for classes in (Classes((BACKGROUND, *NAMES)), Classes((BACKGROUND, *named), (0, *NAMES))):
        numbers = super_of(read_super_classes(str(out)), classes)
        assert numbers[0] == numbers[2] == 1 and numbers[1] == numbers[3] == 2
    assert "0: " in capsys.readouterr().out
    assert "1 classes have no example" in caplog.text
    assert main([*flags[:3], "5", *flags[4:]]) == 2
    assert "expected: 1 to 4" in capsys.readouterr().err


def test_lengths_of_features_may_count_or_not():
    pytest.importorskip("sklearn", reason="k-means comes from scikit-learn")
    rows = np.array([[1.0, 0], [0, 1], [10, 0], [0, 10]])
    classes = mean_features("abcd", rows, np.arange(4), "here")
    assert list(cluster_classes(classes, 2, normalise=True).values()) == [["a", "c"], ["b", "d"]]
    assert ["a", "b"] in cluster_classes(classes, 3).values()


def test_features_of_classes_are_means_of_their_rows(features):
    classes = read_class_features(features)
    rows = np.load(features)["features"]
    np.testing.assert_allclose(classes.means[0], (rows[0] + rows[4]) / 2)
    assert classes.counts.tolist() == [2, 1, 1, 1, 0] and np.isnan(classes.means[4]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 2, 3, 5, 0])}, "do not fit their classes"),
        ({"labels": np.arange(4)}, "do not fit their classes"),
        ({"features": np.full((6, 2), np.nan)}, "not finite"),
        ({"names": np.array(["a", "a", "b", "c", "d"])}, "a class twice"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_class_features(write_features(tmp_path / "x.npz", **changes))


def test_without_scikit_learn_the_message_says_how_to_get_it(features, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[cluster\]"):
        cluster_classes(read_class_features(features), 2)

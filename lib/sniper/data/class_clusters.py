"""Super-classes by clustering what a classifier sees in each class (R-FCN-3K, section 3)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.npz import read_npz
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# k-means starts so often from other centres; the best result counts.
_STARTS = 10


@dataclass(frozen=True, eq=False)
class ClassFeatures:
    """What a classifier sees in each class.

    Attributes:
        names: C names or category ids of the classes.
        means: (C, D) float64, the mean over the class's examples; NaN for classes without any.
        counts: (C,) int64 examples.
    """

    names: tuple[str, ...]
    means: np.ndarray
    counts: np.ndarray


def mean_features(
    names: Sequence[str], features: np.ndarray, labels: np.ndarray, where: object
) -> ClassFeatures:
    """The means of classes.

    Args:
        names: C classes.
        features: (n, D) of examples.
        labels: (n,) class 0 ... C-1 of each; -1: none of them, and left out.
        where: they come from, for messages.

    Raises:
        DataError: the arrays do not fit together, or a feature is not finite.
    """
    fits = features.ndim == 2 and labels.shape == (len(features),)
    if not fits or labels.max(initial=-1) < 0 or labels.max() >= len(names):
        raise DataError(
            "features do not fit their classes",
            where=where,
            got=f"features {features.shape}, labels {labels.shape}, {len(names)} names",
            expected="features (n, D), and a label 0 ... C-1 for each of the n rows",
        )
    if not np.isfinite(features).all():
        raise DataError("a feature is not finite", where=where)
    features, labels = features[labels >= 0], labels[labels >= 0]
    counts = np.bincount(labels, minlength=len(names))
    sums = np.zeros((len(names), features.shape[1]))
    np.add.at(sums, labels, features)
    with np.errstate(invalid="ignore"):
        return ClassFeatures(tuple(names), sums / counts[:, None], counts)


def read_class_features(path: Path) -> ClassFeatures:
    """Features of an NPZ file, such as one of `sniper fit-classes`.

    It has `names` (C,), `features` (n, D), and `labels` (n,), which may be missing where there is
    one row for each class.

    Raises:
        DataError: the file is missing or broken, or names a class twice.
    """
    arrays = read_npz(path, ("names", "features"))
    names, features = list(map(str, arrays["names"].tolist())), arrays["features"]
    if len(set(names)) < len(names):
        raise DataError("features name a class twice", where=path)
    try:
        labels = read_npz(path, ("labels",))["labels"]
    except DataError:
        if len(features) != len(names):
            raise
        labels = np.arange(len(names))
    return mean_features(names, features.astype(np.float64), labels.astype(np.int64), path)


def cluster_classes(
    classes: ClassFeatures, clusters: int, *, normalise: bool = False, seed: int = 0
) -> dict[str, list[str]]:
    """Super-classes by k-means: `{"0": [...], "1": [...]}`, in the order of their first classes.

    Classes without examples go to the largest one, and are told.

    Args:
        classes: what is clustered.
        clusters: K.
        normalise: means are divided by their lengths: directions count, not sizes.
        seed: of the starts.

    Raises:
        ConfigError: there are fewer different classes than clusters, or scikit-learn is missing.
    """
    seen = np.flatnonzero(classes.counts)
    means = classes.means[seen]
    if normalise:
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    distinct = len(np.unique(means, axis=0))
    if not 1 <= clusters <= distinct:
        raise ConfigError(
            "there are fewer classes than clusters",
            where="--clusters",
            got=clusters,
            expected=f"1 to {distinct}",
        )
    members = _k_means(means, clusters, seed)
    largest = int(np.bincount(members).argmax())
    of_class = np.full(len(classes.names), largest)
    of_class[seen] = members
    unseen = [name for name, count in zip(classes.names, classes.counts.tolist()) if not count]
    if unseen:
        logger.warning(
            "%d classes have no example and go to the largest super-class: %s",
            *(len(unseen), ", ".join(unseen)),
        )
    groups: dict[int, list[str]] = {}
    for name, cluster in zip(classes.names, of_class.tolist()):
        groups.setdefault(cluster, []).append(name)
    return {str(number): group for number, group in enumerate(groups.values())}


def _k_means(means: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """(n,) cluster of each row."""
    try:
        # It has no types, and nobody else here needs it.
        cluster = importlib.import_module("sklearn.cluster")
    except ImportError as error:
        raise ConfigError(
            "k-means comes from scikit-learn, which cannot be imported",
            got=error,
            fix='pip install "sniper-mxnet[cluster]", or pip install scikit-learn "numpy<2"',
        ) from error
    fitted = cluster.KMeans(n_clusters=clusters, n_init=_STARTS, random_state=seed).fit(means)
    return fitted.labels_.astype(np.int64)

"""Classes that were learnt from pictures without boxes, and their file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.npz import read_npz, write_npz
from sniper.errors import ConfigError, DataError
from sniper.inference.softmax_fit import (
    Schedule2018,
    fit_softmax,
    fit_softmax_2018,
    softmax,
)

# First entry of `about`; raise it when the content changes.
FORMAT = "sniper-classes 1"
_ARRAYS = ("about", "names", "weights", "biases", "features", "labels", "files")
# Label of pictures that show none of the classes.
BACKGROUND = -1


@dataclass(frozen=True)
class FeatureSpec:
    """Which features a classifier reads.

    Attributes:
        network: `sniper.models.features.features_key` of the network.
        pooling: how a picture became one row, see `sniper.models.features.POOLINGS`.
        size_px: pictures were scaled so that their long side has so many px.
        normalise: rows are divided by their lengths.
    """

    network: str
    pooling: str = "roi"
    size_px: int = 512
    normalise: bool = False

    def prepare(self, features: np.ndarray) -> np.ndarray:
        """Rows as the classifier reads them."""
        if not self.normalise:
            return features
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        return features / np.maximum(lengths, np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class PictureClasses:
    """A linear classifier, and what it was learnt from: with that, classes can be added to it.

    Attributes:
        names: K classes, in the order of their labels.
        spec: of the features.
        weights: (K, C) float32, or (K + 1, C) where it learnt a background, too: the last row.
        biases: of the same rows.
        features: (n, C) float32 of the pictures it was learnt from, before `spec.prepare`.
        labels: (n,) int32, 0 ... K-1, or BACKGROUND.
        files: names of these pictures.
    """

    names: tuple[str, ...]
    spec: FeatureSpec
    weights: np.ndarray
    biases: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """As detectors have them: index 0 is the background."""
        return ("__background__", *self.names)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(R, K) float32 of each class, given an object; what is missing to 1 is background.

        Args:
            features: (R, C) of RoIs or pictures.
        """
        scores = self.spec.prepare(features) @ self.weights.T + self.biases
        return softmax(scores)[:, : len(self.names)].astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Writes the NPZ file; one that is there stays until the new one is complete.

        Raises:
            TrainingError: the file could not be written.
        """
        spec = self.spec
        about = [FORMAT, spec.network, spec.pooling, str(spec.size_px), str(int(spec.normalise))]
        arrays = {name: getattr(self, name) for name in _ARRAYS[2:-1]}
        texts = {"about": about, "names": self.names, "files": self.files}
        write_npz(path, {**{name: np.array(t, np.str_) for name, t in texts.items()}, **arrays})


def load_classes(path: str | Path) -> PictureClasses:
    """Reads a file of `PictureClasses.save`; nothing in it is unpickled.

    Raises:
        DataError: the file is missing, damaged, of another version, or no such file.
    """
    arrays = read_npz(path, _ARRAYS)
    about = arrays["about"].tolist()
    problem = _problem(arrays)
    if problem is not None:
        raise DataError(
            "this is no file of classes",
            where=path,
            got=problem,
            expected=f"a file of `sniper fit-classes` ({FORMAT})",
        )
    spec = FeatureSpec(about[1], about[2], int(about[3]), about[4] == "1")
    return PictureClasses(
        names=tuple(arrays["names"].tolist()),
        spec=spec,
        weights=arrays["weights"],
        biases=arrays["biases"],
        features=arrays["features"],
        labels=arrays["labels"],
        files=tuple(arrays["files"].tolist()),
    )


def learn_classes(
    names: Sequence[str],
    spec: FeatureSpec,
    features: np.ndarray,
    labels: np.ndarray,
    files: Sequence[str],
    *,
    schedule: Schedule2018 | None = None,
    decay: float = 1e-3,
) -> PictureClasses:
    """Learns classes from features of pictures.

    Args:
        names: K classes.
        spec: of the features.
        features: (n, C) float32.
        labels: (n,) 0 ... K-1 or BACKGROUND; each class needs a picture.
        files: names of the pictures.
        schedule: as in 2018; None: the best fit, see `fit_softmax`.
        decay: of the best fit.

    Raises:
        ConfigError: there are no two classes, nor one and a background.
        DataError: a class has no picture.
    """
    has_background = bool((labels == BACKGROUND).any())
    rows = np.where(labels == BACKGROUND, len(names), labels)
    num_rows = len(names) + has_background
    without = [name for label, name in enumerate(names) if not (labels == label).any()]
    if without:
        raise DataError("classes without a picture to learn from", got=", ".join(without))
    if num_rows < 2:
        raise ConfigError(
            "one class alone cannot be told from anything",
            got=", ".join(names),
            fix="give two classes, or pictures of neither with --background",
        )
    prepared = spec.prepare(features)
    if schedule is None:
        weights, biases = fit_softmax(prepared, rows, num_rows, decay=decay)
    else:
        weights, biases = fit_softmax_2018(prepared, rows, num_rows, schedule)
    return PictureClasses(
        names=tuple(names),
        spec=spec,
        weights=weights,
        biases=biases,
        features=features.astype(np.float32),
        labels=labels.astype(np.int32),
        files=tuple(files),
    )


def _problem(arrays: dict[str, np.ndarray]) -> str | None:
    texts = [arrays[name] for name in ("about", "names", "files")]
    if any(array.dtype.kind != "U" or array.ndim != 1 for array in texts):
        return "texts of another type"
    about = arrays["about"].tolist()
    if not about or about[0] != FORMAT:
        return about[0] if about else "nothing"
    if len(about) != 5 or not about[3].isdecimal():
        return f"{len(about)} facts of the features"
    weights, biases, features, labels = (
        arrays[name] for name in ("weights", "biases", "features", "labels")
    )
    count, rows = len(arrays["names"]), len(weights)
    if rows not in (count, count + 1) or biases.shape != (rows,) or weights.ndim != 2:
        return f"{count} names, weights {weights.shape}, biases {biases.shape}"
    if features.ndim != 2 or features.shape != (len(labels), weights.shape[1]):
        return f"features {features.shape}, {len(labels)} labels, weights {weights.shape}"
    if len(arrays["files"]) != len(labels) or labels.dtype != np.int32:
        return f"{len(arrays['files'])} files, {len(labels)} labels of type {labels.dtype}"
    if len(labels) and not (-1 <= labels.min() and labels.max() < count):
        return f"labels from {labels.min()} to {labels.max()} of {count} classes"
    return None

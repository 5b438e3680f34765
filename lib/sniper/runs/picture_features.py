"""Features of whole pictures from the backbone of a detector, kept by network and file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np

from sniper.data.cache import file_sha256
from sniper.data.cut import chip_image, content_size
from sniper.data.image import read_image
from sniper.data.npz import read_npz, write_npz
from sniper.data.sources import Skipped
from sniper.errors import ConfigError, DataError
from sniper.inference.mxnet_executor import BoundGraph
from sniper.inference.picture_classes import FeatureSpec, PictureClasses
from sniper.loader.windows import SIDE_MULTIPLE
from sniper.models.features import POOLINGS, build_picture_features, features_key
from sniper.models.fit import params_of
from sniper.models.model import AnyModel, with_features
from sniper.progress import Progress
from sniper.runs.plan import TestPlan

logger = logging.getLogger(__name__)

_CACHE_ARRAYS = ("key", "digests", "features")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Features of the pictures that could be read, in their order.

    Attributes:
        files: n paths.
        features: (n, C) float32.
        digests: of the files' contents.
        skipped: what could not be read, and why.
    """

    files: tuple[Path, ...]
    features: np.ndarray
    digests: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class PictureFeatures:
    """Computes features of pictures.

    Args:
        plan: of the detector; its devices, the first of which is used, and pixel means.
        model: its weights, or those of its backbone alone.
        size_px: pictures are scaled so that their long side has so many px.
        pooling: see `sniper.models.features.POOLINGS`.
        cache_dir: keeps features; None: does not.

    Raises:
        ConfigError: the pooling is unknown, or the network is one in INT8 or of ONNX graphs.
        DataError: the weights do not fit.
    """

    def __init__(
        self,
        plan: TestPlan,
        model: AnyModel,
        *,
        size_px: int,
        pooling: str = "roi",
        cache_dir: Path | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(
                "there is no such pooling", got=pooling, expected=" or ".join(POOLINGS)
            )
        model = with_features(model)
        self.spec = FeatureSpec(network_key(plan, model), pooling, size_px)
        symbol = build_picture_features(model.spec, pooling)
        self._inputs = symbol.list_inputs()
        self._graph = BoundGraph(symbol, model, plan.devices[0].context())
        self._means = plan.pixel_means
        name = hashlib.sha256(repr(self.spec).encode()).hexdigest()[:16]
        self._cache = None if cache_dir is None else cache_dir / f"features-{name}.npz"

    def read(self, files: Sequence[Path]) -> Pictures:
        """Features of files; those that the cache has are not computed again.

        Raises:
            DataError: none can be read.
            TrainingError: the cache cannot be written.
        """
        known = self._load()
        before = len(known)
        progress = Progress("pictures", len(files))
        kept: list[tuple[Path, str]] = []
        skipped: list[Skipped] = []
        try:
            for done, file in enumerate(files, start=1):
                try:
                    digest = file_sha256(file)
                    if digest not in known:
                        known[digest] = self._compute(file)
                    kept.append((file, digest))
                except DataError as error:
                    skipped.append(Skipped(str(file), str(error)))
                progress.tell(done)
        finally:
            if len(known) > before:
                self._save(known)
        if not kept:
            raise DataError(
                "no picture can be read", got=skipped[0].reason if skipped else "no files"
            )
        logger.info("features of %d pictures, %d of them new", len(kept), len(known) - before)
        rows = np.stack([known[digest] for _, digest in kept])
        return Pictures(
            tuple(file for file, _ in kept),
            *(rows, tuple(digest for _, digest in kept), tuple(skipped)),
        )

    def _compute(self, file: Path) -> np.ndarray:
        image = read_image(file)
        height, width = image.shape[:2]
        rect, factor = (0, 0, width, height), self.spec.size_px / max(height, width)
        content = content_size((height, width), rect, factor)
        if min(content) < 1:
            raise DataError(
                "an image is too thin to be looked at", where=file, got=f"{width}x{height} px"
            )
        sides = [-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in content]
        data = chip_image(image, rect, factor, (sides[0], sides[1]), self._means)
        roi = np.array([[0, 0, 0, content[1] - 1, content[0] - 1]], np.float32)
        inputs = {"data": data[None], "rois": roi}
        used = {name: array for name, array in inputs.items() if name in self._inputs}
        return self._graph.start(used)[0].asnumpy()[0].astype(np.float32)

    def _load(self) -> dict[str, np.ndarray]:
        if self._cache is None or not self._cache.is_file():
            return {}
        try:
            arrays = read_npz(self._cache, _CACHE_ARRAYS)
        except DataError as error:
            logger.warning("features are computed anew: %s", error)
            return {}
        if arrays["key"].tolist() != [repr(self.spec)]:
            return {}
        return dict(zip(arrays["digests"].tolist(), arrays["features"]))

    def _save(self, known: dict[str, np.ndarray]) -> None:
        if self._cache is None:
            return
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        values = ([repr(self.spec)], list(known), np.stack(list(known.values())))
        write_npz(self._cache, dict(zip(_CACHE_ARRAYS, map(np.asarray, values))))


def network_key(plan: TestPlan, model: AnyModel) -> str:
    """A text that two detectors share if, and only if, their features are the same.

    Raises:
        ConfigError: the network is one in INT8 or of ONNX graphs.
        DataError: the weights do not fit.
    """
    model = with_features(model)
    # On a GPU the same features come in half precision.
    symbol = build_picture_features(model.spec.in_fp32(), "mean")
    shape = {"data": (1, 3, SIDE_MULTIPLE, SIDE_MULTIPLE)}
    arg, aux = params_of(symbol, shape, model)
    means = {"pixel_means": mx.nd.array(plan.pixel_means)}
    return features_key(symbol, {**arg, **aux, **means})


def check_same_network(plan: TestPlan, model: AnyModel, classes: PictureClasses) -> None:
    """Whether classes were learnt with the features of a detector.

    Raises:
        DataError: they were not: its numbers would mean nothing to them.
    """
    key = network_key(plan, model)
    if key != classes.spec.network:
        raise DataError(
            "these classes were learnt with the features of another network",
            where=f"the weights of {model.spec.symbol}",
            got=key[:16],
            expected=classes.spec.network[:16],
            fix="take the weights that `sniper fit-classes` was given, or fit the classes anew",
        )

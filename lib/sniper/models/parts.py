"""What a backbone and a head declare: the parts that a detector is put together from.

How to add one of your own is told in `sniper.models.backbones` and `sniper.models.heads`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Union

import numpy as np

from sniper.errors import ConfigError
from sniper.models.class_scores import Scores
from sniper.models.lazy import mx
from sniper.targets.anchors import AnchorGrid
from sniper.targets.contract import Labels

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

# A map by its name, or by its place among those that the backbone offers: -1 is the last one.
Level = Union[int, str]
Arrays = Mapping[str, np.ndarray]
# (numerator, denominator) of a metric over one batch.
Sums = dict[str, tuple[float, float]]


class Start(Enum):
    """How the weights of a layer start; biases start at 0 everywhere."""

    OUTPUT = "N(0, 0.01)"
    # From scratch N(0, 0.01) here would shrink the gradient of everything below.
    HIDDEN = "N(0, 0.01) as in 2018, He et al.'s Gaussian from scratch"
    # Kernel = stride: one pixel makes each pixel; MXNet's weight has the inputs first.
    UPSAMPLING = "the same for a deconvolution whose kernel is its stride"
    # Deformable layers begin as ordinary ones.
    OFFSET = "zeros"
    # A deconvolution by channels that doubles the resolution; it is not trained.
    BILINEAR = "bilinear interpolation"


@dataclass(frozen=True)
class FeatureMap:
    """One map of the backbone.

    Args:
        name: what the backbone calls it.
        data: (N, channels, ~H/stride, ~W/stride) float32.
        stride: px of the network's input per cell.
    """

    name: str
    data: mx.sym.Symbol
    stride: int


@dataclass(frozen=True)
class Released:
    """Weights of others that fit a backbone.

    Args:
        prefix: where `network.pretrained` expects them.
        advice: how to use them.
    """

    prefix: str
    advice: str


@dataclass(frozen=True)
class Backbone:
    """A family member with all that depends on it; to be derived from.

    Args:
        strides: what `network.RPN_FEAT_STRIDE` can be; the heads' maps have this stride.
        rpn_channels: of the RPN's 3x3 layer, unless the configuration says otherwise.
        fc_channels: width of the RoI head's layers, unless the configuration says otherwise.
        options: what fields of `DetectorSpec` that only backbones read may be: `padding`,
            `activation`, `dilate`. Fields that are not named here must keep their defaults.
        box_loss_images: the RoI head's box loss is divided by 188 times this; 0: times the images
            of a device. In 2018 it differed from family to family.
        class_loss_over_all_rois: the RoI head's class loss is divided by the number of RoIs,
            labelled or not.
        released: weights of others, by their names in `sniper import-weights`.
        has_batch_norms: whether any layer is one.
        no_pretrained: layers that no file of pretrained weights has; they start at zero.
        residual_end: parameters that start at zero with INIT scratch: the end of a residual branch
            beside an identity. The block begins as the identity, so that a deep network learns like
            a shallow one at first (Goyal et al., 2017, section 5.1).
    """

    strides: tuple[int, ...]
    rpn_channels: int = 256
    fc_channels: int = 512
    # Only what removes a stride can dilate the blocks behind it: `dilate` says nothing to others.
    options: Mapping[str, tuple[object, ...]] = field(
        default_factory=lambda: {"dilate": (True, False)}
    )
    box_loss_images: int = 0
    class_loss_over_all_rois: bool = False
    released: Mapping[str, Released] = field(default_factory=dict)
    has_batch_norms: ClassVar[bool] = True
    no_pretrained: ClassVar[re.Pattern | None] = None
    residual_end: ClassVar[re.Pattern | None] = None

    def maps(self, stride: int) -> dict[str, int]:
        """Names and strides of the maps that a network of this `RPN_FEAT_STRIDE` offers, in order.

        RPNs that are to read an early map take the first one, all other heads the last one.
        """
        raise NotImplementedError

    def by_stride(self, stride: int) -> dict[int, str]:
        """Names of the maps that heads of several strides (SSH) read, by their strides.

        They need not be among those of `maps`. Here: the first of these of every stride.
        """
        maps = self.maps(stride)
        return {maps[name]: name for name in reversed(maps)}

    def features(
        self, data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool
    ) -> Mapping[str, mx.sym.Symbol]:
        """All these maps by name, float32; what no head reads costs nothing.

        Args:
            data: (N, 3, H, W) float32, RGB minus the pixel means.
            spec: the network.
            train: the graph will be trained.
        """
        raise NotImplementedError

    def strides_of(self, stride: int) -> dict[str, int]:
        """Strides of all maps that `features` may give, by name."""
        by_stride = {name: px for px, name in self.by_stride(stride).items()}
        return {**by_stride, **self.maps(stride)}

    def level(self, level: Level, stride: int) -> tuple[str, int]:
        """Name and stride of a map.

        Raises:
            ConfigError: there is no such map.
        """
        maps = self.maps(stride)
        names = list(maps)
        if isinstance(level, int) and -len(names) <= level < len(names):
            level = names[level]
        if level not in maps:
            raise ConfigError(
                "the backbone offers no such feature map", got=level, expected=" or ".join(names)
            )
        return str(level), maps[str(level)]


@dataclass
class Graph:
    """A detector that is being built.

    Args:
        spec: the network.
        heads: those that take part, in order.
        maps: of the backbone.
        rpn_only: for proposals alone.
        made: what heads have left for those behind them, by name.
        labels: outputs of training that metrics need, to be put out behind all losses.
    """

    spec: DetectorSpec
    heads: Sequence[Head]
    maps: Mapping[str, FeatureMap] = field(default_factory=dict)
    rpn_only: bool = False
    made: dict[str, Any] = field(default_factory=dict)
    labels: list[mx.sym.Symbol] = field(default_factory=list)
    _inputs: dict[str, mx.sym.Symbol] = field(default_factory=dict)

    def map(self, level: Level = -1) -> FeatureMap:
        """A map of the backbone."""
        return self.maps[self.spec.network.backbone.level(level, self.spec.feature_stride)[0]]

    def map_of_stride(self, stride: int) -> FeatureMap:
        """The backbone's map of this stride for heads of several strides.

        Raises:
            ConfigError: there is none.
        """
        names = self.spec.network.backbone.by_stride(self.spec.feature_stride)
        if stride not in names:
            raise ConfigError(
                f"the backbone offers no feature map of stride {stride}",
                where=self.spec.symbol,
                got=", ".join(map(str, sorted(names))),
            )
        return self.maps[names[stride]]

    def input(self, name: str) -> mx.sym.Symbol:
        """An input of the network; heads may share it."""
        return self._inputs.setdefault(name, mx.sym.Variable(name))

    def is_needed(self, name: str) -> bool:
        """Whether a head asks for what can be left in `made` under this name."""
        return any(name in head.needs for head in self.heads)

    def get(self, name: str) -> Any:
        """What a head before has left.

        Raises:
            ConfigError: none has.
        """
        if name not in self.made:
            raise ConfigError(
                f"a head needs {name!r}, which no head before it makes",
                where=self.spec.symbol,
                got=", ".join(sorted(self.made)) or "nothing",
                fix="put the head that makes it in front (sniper.models.networks)",
            )
        return self.made[name]


@dataclass(frozen=True)
class WindowOutputs:
    """Outputs of a test graph for one window.

    Args:
        spec: the network.
        outputs: of the whole batch, by name without `_output`.
        row: of the window in the batch.
        im_info: height, width and scale of the window.
    """

    spec: DetectorSpec
    outputs: Arrays
    row: int
    im_info: np.ndarray


@dataclass
class WindowDetections:
    """What a network finds in one window; heads fill it in one after the other.

    Attributes:
        boxes: (R, 4) px of the network's input.
        scores: (R, C) class probabilities, the background in front; with thousands of classes
            `ClassScores`; (R,) objectness of an RPN alone.
        is_filled: (R,) bool, the rows that hold a box; None: all.
        maps: other results by name, such as the `focus` map, or the `features` of the backbone.
        roi_features: (R, channels) pooled from that map; None: not asked for.
        strides: (R,) int32, px per cell of the map that found each box, where several did (SSH);
            None: one map finds all.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: Scores = field(default_factory=lambda: np.zeros(0, np.float32))
    is_filled: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    roi_features: np.ndarray | None = None
    strides: np.ndarray | None = None

    @property
    def dense_scores(self) -> np.ndarray:
        """`scores` of heads that give an array.

        Raises:
            ConfigError: a head has left `ClassScores`.
        """
        if isinstance(self.scores, np.ndarray):
            return self.scores
        raise ConfigError("a head needs all scores of the head before it, which has left some out")

    def without_strides(self, skipped: Collection[int]) -> tuple[np.ndarray, Scores]:
        """Boxes and scores, without what maps of some strides have found.

        Raises:
            ConfigError: one map finds all.
        """
        if not skipped:
            return self.boxes, self.scores
        if self.strides is None:
            raise ConfigError(
                "this network has no modules of several strides, as SSH has",
                where="TEST.SKIP_STRIDES",
                got=", ".join(map(str, skipped)),
                fix="leave the key out",
            )
        kept = ~np.isin(self.strides, list(skipped))
        return self.boxes[kept], self.scores[kept]


@dataclass(frozen=True)
class Head:
    """One head; to be derived from, see `sniper.models.heads`.

    Attributes:
        in_rpn_training: part of the training of an RPN alone.
        in_rpn_test: part of the test network for proposals alone.
        gives_maps: its test outputs are maps of the image, not rows for boxes; or they came behind
            the images' numbers in 2018, as maps do.
        only_image_ids: test graphs with this head hand through the images' numbers alone (R-FCN-3K
            of 2018), not also the sizes and numbers of windows.
        needs: what earlier heads must leave in `Graph.made` for it.
        output_names: better names for outputs of its training graph.
        output_scales: by layer, what the numbers that each of its outputs learns were divided by.
        when_inactive: what a network with this head is without it, for the log.
    """

    in_rpn_training: ClassVar[bool] = False
    in_rpn_test: ClassVar[bool] = False
    gives_maps: ClassVar[bool] = False
    only_image_ids: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    output_names: ClassVar[Mapping[str, str]] = {}
    output_scales: ClassVar[Mapping[str, Sequence[float]]] = {}
    when_inactive: ClassVar[str] = ""

    @property
    def layers(self) -> Mapping[str, Start]:
        """All its layers with weights, and how they start."""
        raise NotImplementedError

    def is_active(self, spec: DetectorSpec) -> bool:
        """Whether the network has this head: some can be switched off by the configuration."""
        return True

    def labels(self, spec: DetectorSpec, chip_size: int) -> Labels | None:
        """What the head needs of every chip; None: nothing beyond what other heads ask for."""
        return None

    def anchor_grids(self, spec: DetectorSpec) -> Sequence[AnchorGrid]:
        """The anchors that it learns boxes from, for reports and pictures; none by default."""
        return ()

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Outputs of the training graph, with their losses."""
        raise NotImplementedError

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Outputs of the test graph."""
        raise NotImplementedError

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Fills in what it finds in a window, on top of what the heads before it found."""

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """Numerators and denominators of its metrics over a batch, in printing order."""
        return {}

    def must_not_stay_zero(self, spec: DetectorSpec, chip_size: int) -> Mapping[str, str]:
        """Metrics that tell of a mistake when they are 0 for long: name -> what is wrong then.

        The text stands behind "<name> was 0 for 100 updates: " and says what to do.

        Args:
            spec: the network.
            chip_size: side of a training chip, px.
        """
        return {}


LOG_EPSILON = 1e-14  # as in 2018, so that logs can be compared


def classification_metrics(prefix: str, prob: np.ndarray, label: np.ndarray) -> Sums:
    """Accuracy and log loss of `prob` (..., C) for `label` (...), -1 ignored."""
    prob = prob.reshape(-1, prob.shape[-1])
    label = label.reshape(-1)
    kept = label != -1
    prob, label = prob[kept], label[kept].astype(np.int64)
    of_label = prob[np.arange(len(label)), label].astype(np.float64)
    correct = float((prob.argmax(axis=1) == label).sum())
    log_loss = float(-np.log(of_label + LOG_EPSILON).sum())
    return {
        f"{prefix}Acc": (correct, float(len(label))),
        f"{prefix}LogLoss": (log_loss, float(len(label))),
    }

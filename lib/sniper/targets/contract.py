"""The batch contract: which arrays a training batch has, in which order, and who makes them.

Every head of a network says with a `Labels` what it needs of a chip. A `BatchContract` puts those
of all heads together; the loader allocates and fills what it names, and the network is bound to
the same names and shapes. Nothing here needs MXNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sniper.data.record import Record
from sniper.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BatchArray:
    """One array of a sample.

    Attributes:
        name: the network's input of that name reads it.
        shape: of one chip, without the batch axis.
        dtype: in which it travels from the workers; the network gets float32.
    """

    name: str
    shape: Shape
    dtype: type = np.float32


class Window(Protocol):
    """Where a chip lies in its image (`sniper.chips.chip_table.Chip`)."""

    @property
    def rect(self) -> tuple[float, ...]:
        """x1 y1 x2 y2, image px."""

    @property
    def factor(self) -> float:
        """Image px -> chip px."""

    @property
    def height(self) -> int:
        """Rows with content, chip px."""

    @property
    def width(self) -> int:
        """Columns with content, chip px."""

    @property
    def level(self) -> int:
        """Level of the training pyramid; 0 is the finest."""


@dataclass(frozen=True, eq=False)
class GtInChip:
    """Ground truth that survives in a chip, in the order of the record.

    Attributes:
        boxes: (n, 4) float32, chip px, rounded and clipped to the chip.
        classes: (n,) int32.
        valid: (n,) bool: the level of the chip is responsible for the box. All others are
            "ignore" regions of the RPN.
        rows: (n,) int32, rows of the boxes in the record.
        is_object: (n,) bool: enough of the box is in the chip for the box head to call it an
            object; the others are background to it.
    """

    boxes: np.ndarray
    classes: np.ndarray
    valid: np.ndarray
    rows: np.ndarray
    is_object: np.ndarray


@dataclass(frozen=True, eq=False)
class ChipTruth:
    """What the labels of one chip are made of.

    Attributes:
        record: the image; its ground truth alone.
        chip: where the chip lies.
        gt: the ground truth that the chip sees.
        chip_size: side of the chip, px.
        seed: of whatever is drawn by chance, 64 bits.
        legacy: labels follow the rules of 2018 (`TRAIN.LEGACY_BOXES`).
        crowd_boxes: (m, 4) float32, chip px: the record's crowd regions inside the chip.
    """

    record: Record
    chip: Window
    gt: GtInChip
    chip_size: int
    seed: int
    legacy: bool = False
    crowd_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))


class Labels:
    """The arrays that one head needs of every chip, and how they are made; to be derived from.

    Most heads set `data` or `label` and define `write`. Arrays that are mostly zeros can travel
    from the workers in another form: `compact` says which, `write` fills that, and `expand` makes
    the network's arrays of it.

    Attributes:
        data: arrays that the network reads as data.
        label: arrays that it reads as labels.
        needs_polygons: the records must have polygons.
    """

    data: tuple[BatchArray, ...] = ()
    label: tuple[BatchArray, ...] = ()
    needs_polygons = False

    @property
    def compact(self) -> tuple[BatchArray, ...]:
        """What `write` fills; the arrays themselves unless this is overridden."""
        return (*self.data, *self.label)

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """Writes the arrays of `compact` for one chip, all of each array.

        Args:
            truth: the chip.
            row: the arrays by name, without the batch axis; they hold an older sample.

        Returns:
            How many boxes had no room.
        """
        raise NotImplementedError

    def expand(self, compact: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> None:
        """From a batch of `compact` to the float32 arrays of the network."""
        for array in (*self.data, *self.label):
            np.copyto(arrays[array.name], compact[array.name])


@dataclass(frozen=True, eq=False)
class BatchContract:
    """Names, order and shapes of all arrays of a training batch; all reach the network as float32.

    The image `data` comes first, then the data of every part, then the labels of every part: with
    the parts of a 2018 network in its order these are the arrays of the 2018 iterators.

    Args:
        chip_size: side of the chips, px.
        parts: what the heads need, in the order of the heads.

    Raises:
        ConfigError: two parts make an array of the same name.
    """

    chip_size: int
    parts: tuple[Labels, ...]

    def __post_init__(self) -> None:
        for names in (
            [*self.data_names, *self.label_names],
            [array.name for part in self.parts for array in part.compact],
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(
                    "two heads need an array of the same name",
                    got=", ".join(twice),
                    fix="give one of them a suffix",
                )

    @property
    def data_names(self) -> tuple[str, ...]:
        """Arrays that the network reads as data, in order."""
        return ("data", *(array.name for part in self.parts for array in part.data))

    @property
    def label_names(self) -> tuple[str, ...]:
        """Arrays that the network reads as labels, in order."""
        return tuple(array.name for part in self.parts for array in part.label)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of the arrays of one sample, data first."""
        groups = [part.data for part in self.parts] + [part.label for part in self.parts]
        image: dict[str, Shape] = {"data": (3, self.chip_size, self.chip_size)}
        return image | {array.name: array.shape for group in groups for array in group}

    @property
    def needs_polygons(self) -> bool:
        """The records must have polygons."""
        return any(part.needs_polygons for part in self.parts)

    def input_shapes(self, images: int) -> dict[str, Shape]:
        """Shapes of all data and labels of a batch."""
        return {name: (images, *shape) for name, shape in self.shapes.items()}

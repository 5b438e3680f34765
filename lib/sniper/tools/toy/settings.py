"""What a generated data set consists of: splits, counts, seed; and the checks of these values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sniper.errors import ConfigError
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.shapes import CLASSES

# Part of every stamp: raise it when a change of the generator changes its pictures.
GENERATOR_VERSION = 2


@dataclass(frozen=True)
class Split:
    """One split: name, number in the seed, image folder, annotation file, with boxes or without."""

    name: str
    number: int
    folder: str
    annotation_file: str
    annotated: bool


SPLITS = (
    Split("train", 0, "train", "instances_train.json", True),
    Split("val", 1, "val", "instances_val.json", True),
    Split("test", 2, "test", "instances_test.json", True),
    Split("test-dev2026", 3, "test2026", "image_info_test-dev2026.json", False),
)
DEMO_SPLIT_NUMBER = 9  # scenes that are in no split


@dataclass(frozen=True)
class ToySettings:
    """Settings of a data set; equal settings give equal files.

    Attributes:
        train: images of the split `train`; likewise `val`, `test` (annotated, held out) and
            `test_dev` (without annotations).
        seed: any integer >= 0.
        scene: what the pictures hold.
    """

    train: int = 1000
    val: int = 80
    test: int = 40
    test_dev: int = 40
    seed: int = 7
    scene: SceneSettings = field(default_factory=SceneSettings)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: a value is out of its range.
        """
        scene = self.scene
        for split in SPLITS:
            _check(self.count(split) >= 0, f"images of {split.name}", self.count(split), ">= 0")
        _check(self.train + self.val + self.test + self.test_dev > 0, "images", 0, ">= 1 in all")
        _check(self.seed >= 0, "seed", self.seed, ">= 0")
        most = len(CLASSES)
        _check(1 <= scene.classes <= most, "classes", scene.classes, f"1 .. {most}")
        _check(
            1 <= scene.min_objects <= scene.max_objects,
            "objects per image",
            f"{scene.min_objects} {scene.max_objects}",
            "1 <= fewest <= most",
        )
        _check(
            8 <= scene.min_size_px <= scene.max_size_px,
            "object sizes",
            f"{scene.min_size_px:g} {scene.max_size_px:g}",
            "8 <= smallest <= largest, px",
        )
        _check(64 <= scene.long_side_px <= 4096, "long side", scene.long_side_px, "64 .. 4096 px")

    def count(self, split: Split) -> int:
        """Number of images of a split."""
        counts = {"train": self.train, "val": self.val, "test": self.test}
        return counts.get(split.name, self.test_dev)

    def as_dict(self) -> dict:
        """Plain values for the stamp file."""
        content = {"generator": GENERATOR_VERSION, **asdict(self)}
        # The stamps of sets that were made before this setting do not have it.
        if not self.scene.size_bound:
            del content["scene"]["size_bound"]
        return content


def _check(good: bool, name: str, got: object, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"make-toy-data cannot use this value for the {name}",
            got=got,
            expected=expected,
            fix="see sniper make-toy-data --help",
        )

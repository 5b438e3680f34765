"""What a generated data set consists of: splits, counts, seed; and the checks of these values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from sniper.errors import ConfigError
from sniper.tools.toy.fine import held_out_first
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.shapes import CLASSES, ToyClass

# Part of every stamp: raise it when a change of the generator changes its pictures.
GENERATOR_VERSION = 2


@dataclass(frozen=True)
class Split:
    """One split: name, number in the seed, image folder, annotation file, with boxes or without.

    A split without an annotation file has a folder for each class.
    """

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
TRAIN = SPLITS[0]
# Classes that no other split shows: scenes with boxes, and pictures of one object each without.
NOVEL = Split("novel", 4, "novel", "instances_novel.json", True)
FEW_SHOT = Split("few_shot", 5, "few_shot", "", False)
EVERY_SPLIT = (*SPLITS, NOVEL, FEW_SHOT)
# Sizes of a fine class's objects, px: large enough that fillings can be told.
FINE_SIZES_PX = (32.0, 256.0)
DEMO_SPLIT_NUMBER = 9  # scenes that are in no split


@dataclass(frozen=True)
class ToySettings:
    """Settings of a data set; equal settings give equal files.

    Attributes:
        train: images of the split `train`; likewise `val`, `test` (annotated, held out) and
            `test_dev` (without annotations).
        seed: any integer >= 0.
        scene: what the pictures hold.
        held_out: fine classes that only the splits `novel` and `few_shot` show.
        novel: images of the split `novel`.
        shots: pictures of each of these classes in `few_shot`.
        openimages: also write the official tables of Open Images.
        drop_labels: share of the objects of `train` that lose their annotation; every image keeps
            one.
        drop_far: the same, but those that lie far from all objects with annotation.
        drop_seed: which these are.
    """

    train: int = 1000
    val: int = 80
    test: int = 40
    test_dev: int = 40
    seed: int = 7
    scene: SceneSettings = field(default_factory=SceneSettings)
    held_out: int = 0
    novel: int = 0
    shots: int = 0
    openimages: bool = False
    drop_labels: float = 0.0
    drop_far: float = 0.0
    drop_seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: a value is out of its range.
        """
        scene = self.scene
        for split in (*SPLITS, NOVEL):
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
        # A size that tells the class would give fine classes away.
        _check(not (scene.fine and scene.size_bound), "sizes", "--fine and --size-bound", "one")
        most = len(scene.kinds) - 1 if scene.fine else 0
        _check(0 <= self.held_out <= most, "held-out classes", self.held_out, f"0 .. {most}")
        for share in (self.drop_labels, self.drop_far):
            _check(0 <= share < 1, "share of dropped labels", share, "0 .. 1")
        both = self.drop_labels and self.drop_far
        _check(not both, "dropped labels", "--drop-labels and --drop-far", "one")
        _check(self.drop_seed >= 0, "seed of dropped labels", self.drop_seed, ">= 0")
        _check(self.shots >= 0, "pictures per held-out class", self.shots, ">= 0")

    def count(self, split: Split) -> int:
        """Number of images of a split."""
        counts = {
            **{"train": self.train, "val": self.val, "test": self.test},
            NOVEL.name: self.novel if self.held_out else 0,
            FEW_SHOT.name: self.shots * self.held_out,
        }
        return counts.get(split.name, self.test_dev)

    @property
    def splits(self) -> tuple[Split, ...]:
        """All splits that sets of this kind have."""
        return EVERY_SPLIT if self.held_out else SPLITS

    def kinds(self, split: Split) -> tuple[ToyClass, ...]:
        """The classes of a split, by ascending category id."""
        held_out = {kind.name for kind in held_out_first(self._shapes)[: self.held_out]}
        wants_held_out = split in (NOVEL, FEW_SHOT)
        return tuple(k for k in self.scene.kinds if (k.name in held_out) == wants_held_out)

    def content(self, split: Split, index: int) -> tuple[SceneSettings, tuple[ToyClass, ...]]:
        """What one image shows, and the classes of its objects."""
        kinds = self.kinds(split)
        if split != FEW_SHOT:
            return self.scene, kinds
        # As pictures in a folder of a class are: half as large, with one large thing and no other.
        long_side_px = max(64, self.scene.long_side_px // 2)
        one = replace(
            self.scene,
            min_objects=1,
            max_objects=1,
            max_distractors=0,
            min_size_px=0.3 * long_side_px,
            max_size_px=0.6 * long_side_px,
            long_side_px=long_side_px,
        )
        return one, (kinds[index // self.shots],)

    def file(self, split: Split, index: int) -> str:
        """Where an image lies in the folder of the data set."""
        name = f"{split.folder}_{index % (self.shots if split == FEW_SHOT else 10**9):06d}.jpg"
        if split != FEW_SHOT:
            return f"images/{split.folder}/{name}"
        return f"{split.folder}/{self.kinds(split)[index // self.shots].name}/{name}"

    def as_dict(self) -> dict:
        """Plain values for the stamp file."""
        content = {"generator": GENERATOR_VERSION, **asdict(self)}
        del content["scene"]["max_distractors"]  # not for the user to choose
        # The stamps of sets that were made before these settings do not have them.
        if not self.scene.size_bound:
            del content["scene"]["size_bound"]
        if not self.openimages:
            del content["openimages"]
        if not self.drop_labels:
            del content["drop_labels"]
        else:
            # The first rule drew for each object, and reached the share on average alone.
            content["drop_rule"] = 2
        if not self.drop_far:
            del content["drop_far"]
        if not (self.drop_labels or self.drop_far):
            del content["drop_seed"]
        if not self.scene.fine:
            for name in ("held_out", "novel", "shots"):
                del content[name]
            del content["scene"]["fine"]
        return content

    @property
    def _shapes(self) -> tuple[ToyClass, ...]:
        return CLASSES[: self.scene.classes] if self.scene.fine else ()


def _check(good: bool, name: str, got: object, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"make-toy-data cannot use this value for the {name}",
            got=got,
            expected=expected,
            fix="see sniper make-toy-data --help",
        )

"""Writes a generated set of faces in the layout of WIDER FACE.

`WIDER_<set>/images/<event>/<name>.jpg` and `wider_face_split/`: the annotation texts of train and
val, the list of test, and which faces of train and val count as easy, medium and hard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sniper.errors import ConfigError, DataError
from sniper.tools.toy.face_scene import (
    CROWD,
    SCENE,
    STILL_LIFE,
    Face,
    FaceSceneSettings,
    render_face_scene,
)
from sniper.tools.toy.picture import encode_jpeg, write_image
from sniper.tools.toy.processes import run_jobs, told
from sniper.tools.toy.stamp import (
    COMPLETE,
    LAYOUT,
    OURS,
    digest,
    folder_state,
    write_stamp,
    write_text,
)

# Part of every stamp: raise it when a change of the generator changes its pictures.
GENERATOR_VERSION = 1
SPLITS = ("train", "val", "test")
_TEST = SPLITS[2]
_TEXTS = "wider_face_split"
# What the pictures show, by turns.
_KINDS = (SCENE, CROWD, SCENE, SCENE, CROWD, SCENE, STILL_LIFE, SCENE, CROWD, SCENE)
_EVENTS = (SCENE, CROWD, STILL_LIFE)
_NO_FACE = "0 0 0 0 0 0 0 0 0 0"
# Least heights of faces that count, px: about the smallest of WIDER FACE's own lists.
_EASY_PX, _MEDIUM_PX = 34, 16
_HEAVY = 2


@dataclass(frozen=True)
class FaceSetSettings:
    """Settings of a set of faces; equal settings give equal files.

    Attributes:
        train: images of the set `train`; likewise `val` and `test`, which has no annotations.
        seed: any integer >= 0.
        scene: what the pictures hold.
    """

    train: int = 1000
    val: int = 80
    test: int = 40
    seed: int = 7
    scene: FaceSceneSettings = field(default_factory=FaceSceneSettings)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: a value is out of its range.
        """
        scene = self.scene
        sizes = f"{scene.min_size_px:g} {scene.max_size_px:g}"
        total = sum(self.count(split) for split in SPLITS)
        for good, name, got, expected in (
            (total > 0, "images", total, ">= 1 in all"),
            (self.seed >= 0, "seed", self.seed, ">= 0"),
            (
                8 <= scene.min_size_px <= scene.max_size_px,
                "face sizes",
                sizes,
                "8 <= smallest <= largest, px",
            ),
            (64 <= scene.long_side_px <= 4096, "long side", scene.long_side_px, "64 .. 4096 px"),
        ):
            if not good:
                raise ConfigError(
                    f"make-toy-data --faces cannot use this value for the {name}",
                    got=got,
                    expected=expected,
                    fix="see sniper make-toy-data --help",
                )

    def count(self, split: str) -> int:
        """Number of images of a set."""
        return int(getattr(self, split))

    def as_dict(self) -> dict:
        """Plain values for the stamp file."""
        return {LAYOUT: "wider", "generator": GENERATOR_VERSION, **asdict(self)}

    def jobs(self) -> list[tuple[str, int]]:
        """Set and number of each image."""
        return [(split, index) for split in SPLITS for index in range(self.count(split))]

    def files(self) -> list[str]:
        """Names of all files but the stamp."""
        texts = [f"{_TEXTS}/{name}" for split in SPLITS for name in _text_names(self, split)]
        return texts + [_file(split, index) for split, index in self.jobs()]


@dataclass(frozen=True)
class _Picture:
    """One written image: where it lies in the folder, its faces, the digest of its file."""

    file: str
    faces: tuple[Face, ...]
    sha256: str

    @property
    def name(self) -> str:
        """`<event>/<name>.jpg`."""
        return self.file.split("/", 2)[2]


def _kind(index: int) -> str:
    return _KINDS[index % len(_KINDS)]


def _file(split: str, index: int) -> str:
    kind = _kind(index)
    number = _EVENTS.index(kind)
    name = f"{number}_{kind}_{split}_{index:06d}.jpg"
    return f"{_images(split)}/{number}--{kind}/{name}"


def _images(split: str) -> str:
    return f"WIDER_{split}/images"


def _text_names(settings: FaceSetSettings, split: str) -> list[str]:
    """The texts of a set that has images."""
    if not settings.count(split):
        return []
    if split == _TEST:
        return [f"wider_face_{split}_filelist.txt"]
    return [f"wider_face_{split}_bbx_gt.txt", f"{split}_levels.json"]


def make_face_set(
    out: str | Path,
    settings: FaceSetSettings,
    *,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[str], None] = print,
) -> bool:
    """Makes the set, unless the folder holds exactly this one already.

    Args:
        out: folder; made when missing. A set of these settings that is incomplete or was changed is
            written again.
        settings: what to make.
        workers: processes; all usable cores when None. The result does not depend on it.
        force: replace a generated set of faces of other settings.
        progress: receives progress lines, one every 5 s at most.

    Returns:
        True when files were written, False when the folder's set is reused.

    Raises:
        DataError: the folder was not made by this tool, holds another set, or is not writable.
        TrainingError: a worker process died, or a text could not be written.
    """
    out = Path(out)
    state = folder_state(out, settings.as_dict(), settings.files(), force, progress)
    if state == COMPLETE:
        return False
    _prepare(out, settings, replaces=state == OURS)
    jobs = settings.jobs()
    by_split: dict[str, list[_Picture]] = {split: [] for split in SPLITS}
    digests = {}
    pictures = run_jobs(partial(_write_picture, str(out), settings), jobs, workers)
    for (split, _), picture in zip(jobs, told(pictures, len(jobs), progress)):
        by_split[split].append(picture)
        digests[picture.file] = picture.sha256
    for split, of_split in by_split.items():
        texts = (_filelist(of_split),) if split == _TEST else _annotations(of_split)
        for name, text in zip(_text_names(settings, split), texts):
            digests[f"{_TEXTS}/{name}"] = write_text(out / _TEXTS / name, text)
    write_stamp(out, settings.as_dict(), digest(digests))
    return True


def _prepare(out: Path, settings: FaceSetSettings, replaces: bool) -> None:
    """Marks the folder as unfinished before anything else changes, and clears what was ours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_stamp(out, settings.as_dict(), None)
        for split in SPLITS if replaces else ():
            ours = re.compile(rf"\d_\w+_{split}_\d{{6}}\.jpg(\.\d+\.tmp)?")
            for file in out.glob(f"{_images(split)}/*/*"):
                if ours.fullmatch(file.name):
                    file.unlink()
            for name in (f"wider_face_{split}_*.txt", f"{split}_levels.json"):
                for file in (out / _TEXTS).glob(name):
                    file.unlink()
        for folder in {str(Path(file).parent) for file in settings.files()}:
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("the folder cannot be written", where=out, got=error) from error


def _write_picture(out: str, settings: FaceSetSettings, job: tuple[str, int]) -> _Picture:
    """Renders and writes one image; everything in it comes from (seed, set, number)."""
    split, index = job
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    scene = render_face_scene(rng, settings.scene, _kind(index))
    file = _file(split, index)
    # Low qualities would wipe out the features of the smallest faces.
    encoded = encode_jpeg(scene.image, int(rng.integers(84, 97)))
    return _Picture(file, scene.faces, write_image(Path(out, file), encoded))


def _annotations(pictures: Sequence[_Picture]) -> tuple[str, str]:
    """The annotation text, and which faces count at each level."""
    lines: list[str] = []
    levels = {}
    for picture in pictures:
        lines += [picture.name, str(len(picture.faces))]
        lines += [_line(face) for face in picture.faces] or [_NO_FACE]
        levels[picture.name] = _levels(picture.faces)
    note = (
        "numbers of the faces that count, from 1; the others are neither right nor wrong. hard: "
        f"all that are not invalid; medium: from {_MEDIUM_PX} px height; easy: from {_EASY_PX} px "
        "height, not heavily blurred or hidden"
    )
    return "\n".join(lines) + "\n", json.dumps({"note": note, "lists": levels}) + "\n"


def _line(face: Face) -> str:
    attributes = (face.blur, face.expression, face.illumination, face.invalid)
    return " ".join(map(str, (*face.box, *attributes, face.occlusion, face.pose)))


def _levels(faces: Sequence[Face]) -> dict[str, list[int]]:
    numbered = [(row, f) for row, f in enumerate(faces, start=1) if not f.invalid]
    medium = [(row, f) for row, f in numbered if f.box[3] >= _MEDIUM_PX]
    easy = [
        row for row, f in medium if f.box[3] >= _EASY_PX and _HEAVY not in (f.blur, f.occlusion)
    ]
    return {
        "easy": easy,
        "medium": [row for row, _ in medium],
        "hard": [row for row, _ in numbered],
    }


def _filelist(pictures: Sequence[_Picture]) -> str:
    return "".join(f"{picture.name}\n" for picture in pictures)

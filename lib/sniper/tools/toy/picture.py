"""One image of a generated set: rendered, encoded and written."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sniper.errors import DataError
from sniper.tools.toy.scene import SceneObject, render_scene
from sniper.tools.toy.settings import FEW_SHOT, Split, ToySettings


@dataclass(frozen=True)
class Picture:
    """One written image.

    Attributes:
        file: where it lies in the folder of the data set.
        width: px.
        height: px.
        objects: what it shows, of splits with annotations.
        sha256: digest of the file.
        lost: rows of the objects without annotation.
    """

    file: str
    width: int
    height: int
    objects: tuple[SceneObject, ...]
    sha256: str
    lost: frozenset[int] = frozenset()

    @property
    def labelled(self) -> list[SceneObject]:
        """The objects with annotation."""
        return [item for row, item in enumerate(self.objects) if row not in self.lost]

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) x y width height of all objects, px."""
        return np.array([item.box for item in self.objects], np.float64).reshape(-1, 4)


def image_id(split: Split, index: int) -> int:
    """The id in annotation files; ids have gaps, as those of real data sets."""
    return 100_000 * (split.number + 1) + 3 * index + 1


def write_picture(out: str, settings: ToySettings, job: tuple[Split, int]) -> Picture:
    """Renders and writes one image; everything in it comes from (seed, split, index).

    Raises:
        DataError: the file cannot be written.
    """
    split, index = job
    rng = np.random.default_rng([settings.seed, split.number, index])
    scene, kinds = settings.content(split, index)
    rendered = render_scene(rng, scene, kinds=kinds)
    while split == FEW_SHOT and not rendered.objects:  # no place was found for it
        rendered = render_scene(rng, scene, kinds=kinds)
    encoded = encode_jpeg(rendered.image, int(rng.integers(72, 96)))
    file = settings.file(split, index)
    sha256 = write_image(Path(out, file), encoded)
    height, width = rendered.image.shape[:2]
    objects = rendered.objects if split.annotated else ()
    return Picture(file, width, height, objects, sha256)


def write_image(target: Path, encoded: bytes) -> str:
    """Writes an encoded image and gives its SHA-256.

    Raises:
        DataError: the file cannot be written.
    """
    # A rename, so that another process never sees half of an image.
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(encoded)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError("an image cannot be written", where=target, got=error) from error
    return hashlib.sha256(encoded).hexdigest()


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of a uint8 (H, W, 3) BGR image.

    Raises:
        DataError: OpenCV could not encode it.
    """
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise DataError("OpenCV could not encode an image as JPEG", got=image.shape)
    return data.tobytes()

"""Images to detect on: files, folders, globs, lists, arrays and videos, one after the other."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Union

import numpy as np

from sniper.data.folder_walk import is_drawing, walk_images
from sniper.data.image import read_image
from sniper.data.image_endings import IMAGE_ENDINGS, has_image_ending
from sniper.data.listings import listed_path, read_text
from sniper.data.picture_notes import OnNote, PictureNotes, tell_each
from sniper.data.video import Frame, is_video, read_frames, video_info
from sniper.errors import ConfigError, DataError

LIST_ENDING = ".txt"

# A path or a pattern, an array (H, W, 3) uint8 BGR, or several of these.
SourceLike = Union[str, "os.PathLike[str]", np.ndarray, Sequence["SourceLike"]]


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image, decoded only where nothing else is possible (arrays, frames).

    Attributes:
        name: path below the folder that all files of the source share, with `/`: unique for
            different files. Frames are `<video>#<number>`, arrays `image_<number>`.
        path: the image file, or the video of a frame; None for arrays.
        pixels: (H, W, 3) uint8 BGR; None for files, which `read` decodes.
        frame: place in the video; None for images.
    """

    name: str
    path: Path | None = None
    pixels: np.ndarray | None = None
    frame: Frame | None = None
    on_note: OnNote = field(default=tell_each, compare=False, repr=False)

    def read(self) -> np.ndarray:
        """The pixels (H, W, 3) uint8 BGR.

        Raises:
            DataError: the file is missing, cut off or no image.
        """
        if self.pixels is not None:
            return self.pixels
        if self.path is None:
            raise DataError("an image has neither a file nor pixels", where=self.name)
        return read_image(self.path, on_note=self.on_note)


@dataclass(frozen=True)
class Skipped:
    """What could not be read, and why."""

    name: str
    reason: str


@dataclass(eq=False)
class Source:
    """Images in a fixed order; can be iterated over any number of times.

    Attributes:
        parts: files and arrays, videos, in order.
        every: the n-th frames of videos are taken.
        on_error: "raise", or "skip": what cannot be read goes to `skipped`.
        skipped: filled while the images are read.
    """

    parts: list[SourceImage]
    every: int = 1
    on_error: str = "raise"
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def expected(self) -> int | None:
        """Number of images; of videos what their containers say, None where one does not."""
        total = 0
        for part in self.parts:
            frames = self._frames_in(part) if _is_video_part(part) else 1
            if frames is None:
                return None
            total += frames
        return total

    def __len__(self) -> int:
        """Number of images; TypeError for videos, whose length shows at their end."""
        if any(map(_is_video_part, self.parts)):
            raise TypeError("the number of frames of a video is known at its end; see `expected`")
        return len(self.parts)

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in order.

        Raises:
            DataError: a video cannot be read; with on_error "skip" it goes to `skipped`.
        """
        for part in self.parts:
            if part.path is None or not _is_video_part(part):
                yield part
                continue
            try:
                for frame, pixels in read_frames(part.path, self.every):
                    yield SourceImage(f"{part.name}#{frame.index:06d}", part.path, pixels, frame)
            except DataError as error:
                self.refuse(part.name, error)

    def refuse(self, name: str, error: DataError) -> None:
        """Notes an image that cannot be read, or raises the error if none may be left out."""
        if self.on_error == "raise":
            raise error
        self.skipped.append(Skipped(name, str(error)))

    def _frames_in(self, part: SourceImage) -> int | None:
        if part.path is None:
            return 0
        try:
            count = video_info(part.path).num_frames
        except DataError:
            return 0  # reported when its turn comes
        return None if count is None else math.ceil(count / self.every)


def open_source(
    source: SourceLike | Source, *, recursive: bool = False, every: int = 1, on_error: str = "raise"
) -> Source:
    """Finds the images of a source; none is decoded yet.

    Args:
        source: an image, a video, a folder of images, a glob, a text file (`.txt`) with one path a
            line, relative to its own folder; an array (H, W, 3) uint8 BGR; or a list of any of
            these. A `Source` is returned as it is.
        recursive: look into folders below folders.
        every: take each n-th frame of videos.
        on_error: "raise", or "skip" what cannot be read and list it in `Source.skipped`.

    Raises:
        ConfigError: a wrong type, array or option.
        DataError: there is no such file, or no image in it.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(every, Integral) or every < 1 or on_error not in ("raise", "skip"):
        raise ConfigError(
            "a source cannot be opened like this",
            got=f"every {every}, on_error {on_error!r}",
            expected='every a whole number >= 1, on_error "raise" or "skip"',
        )
    opened = Source([], every, on_error)
    finds: list[_Find | np.ndarray] = []
    for member in _flat(source):
        if isinstance(member, np.ndarray):
            finds.append(_checked(member))
            continue
        try:
            finds.append(_find(os.fspath(member), recursive))
        except DataError as error:
            opened.refuse(os.fspath(member), error)
    opened.parts.extend(_named(finds))
    return opened


@dataclass(frozen=True)
class _Find:
    """Files of one member of a source, and the folder that their names start from."""

    base: str
    paths: list[str]


def _flat(source: SourceLike) -> Iterator[str | os.PathLike[str] | np.ndarray]:
    if isinstance(source, (str, os.PathLike, np.ndarray)):
        yield source
    elif isinstance(source, (list, tuple)):
        for member in source:
            yield from _flat(member)
    else:
        raise ConfigError(
            "this is nothing to detect on",
            got=type(source).__name__,
            expected="a path, an array (H, W, 3) uint8 BGR, or a list of these",
        )


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ConfigError(
            "an array is no image",
            got=f"{image.dtype} {image.shape}",
            expected="uint8 (H, W, 3), channels blue, green, red",
            fix="cv2.imread gives such arrays; several images go in as a list",
        )
    return image


def _find(name: str, recursive: bool) -> _Find:
    if os.path.isdir(name):
        return _Find(name, _in_folder(name, recursive))
    if os.path.isfile(name):
        if name.lower().endswith(LIST_ENDING):
            return _in_list(name)
        return _Find(os.path.dirname(name), [name])
    if glob.has_magic(name):
        return _matches(name)
    raise DataError(
        "there is no such file or folder",
        where=name,
        expected="an image, a video, a folder, a pattern such as 'photos/*.jpg', or a .txt list",
    )


def _in_folder(folder: str, recursive: bool) -> list[str]:
    images = list(walk_images(folder, recursive=recursive))
    if not images:
        raise DataError(
            "a folder has no images",
            where=folder,
            expected="files that end in " + ", ".join(IMAGE_ENDINGS),
            fix=None if recursive else "images in folders below it count with the option recursive",
        )
    return images


def _matches(pattern: str) -> _Find:
    base = pattern
    while glob.has_magic(base):
        base = os.path.dirname(base)
    paths = sorted(
        path
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path)
        and (has_image_ending(path) or is_video(path))
        and not is_drawing(path, below=base)
    )
    if not paths:
        raise DataError("no image or video has such a name", where=pattern)
    return _Find(base, paths)


def _in_list(name: str) -> _Find:
    """Files that a text names; whether they are there shows when they are read."""
    lines = read_text(Path(name), "list of images").splitlines()
    folder = os.path.dirname(name)
    paths = [listed_path(folder, line.strip()) for line in lines if line.strip()]
    if not paths:
        raise DataError("a list of images is empty", where=name, expected="one path a line")
    return _Find(_shared_folder([os.path.dirname(path) for path in paths]), paths)


def _is_video_part(part: SourceImage) -> bool:
    return part.path is not None and part.frame is None and is_video(part.path)


def _named(finds: Sequence[_Find | np.ndarray]) -> Iterator[SourceImage]:
    """All files and arrays in order, with names that tell different files apart."""
    bases = [find.base for find in finds if isinstance(find, _Find)]
    base = _shared_folder(bases) if bases else ""
    number = 0
    notes = PictureNotes()
    for find in finds:
        if isinstance(find, np.ndarray):
            yield SourceImage(f"image_{number:06d}", pixels=find)
            number += 1
            continue
        for path in find.paths:
            name = os.path.relpath(os.path.abspath(path), base)
            yield SourceImage(Path(name).as_posix(), Path(path), on_note=notes.tell)


def _shared_folder(folders: Sequence[str]) -> str:
    return os.path.commonpath([os.path.abspath(folder) for folder in folders])

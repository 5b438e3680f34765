"""Pictures of chips as files: how large they will be, and writing them in threads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from sniper.chips.measures import evenly
from sniper.data.image_header import image_size
from sniper.errors import DataError, TrainingError
from sniper.loader.images import ImageCache, ImageSource
from sniper.loader.threads import DaemonThreads
from sniper.progress import Progress
from sniper.tools.chip_sets.content import ChipSet, Place

# Pictures that are made to say how large all will be.
_SAMPLE = 32
# Jobs of each thread that wait: enough that none is idle, few enough to stop at once.
_WAITING = 4
# What may come on top of an estimate: blocks of the disk, annotations, a poor sample.
_SURPLUS = 1.1


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """The files of a set's pictures.

    Attributes:
        chips: the set.
        folder: where they go.
        quality: of JPEG files, 1 to 100; 0: PNG, to the pixel what training sees.
        mask: what the chip is not trained on is painted over with one colour (BGR), but for where a
            trained object lies; None: it is left as it is.
    """

    chips: ChipSet
    folder: Path
    quality: int = 0
    mask: tuple[int, int, int] | None = None

    @property
    def ending(self) -> str:
        """`.png` or `.jpg`."""
        return ".jpg" if self.quality else ".png"

    def path(self, place: Place) -> Path:
        """The file of a chip."""
        return self.folder / f"{place.file_stem}{self.ending}"

    def encoded(self, place: Place, images: ImageSource) -> tuple[bytes, tuple[int, int]]:
        """The bytes of a file, and height and width of its picture.

        Raises:
            DataError: the image cannot be read.
        """
        pixels = self.chips.pixels(place, images)
        height, width = pixels.shape[:2]
        if self.mask is not None:
            pixels = self._masked(place, pixels)
        parameters = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.quality else []
        done, content = cv2.imencode(self.ending, pixels, parameters)
        if not done:
            raise DataError("a chip cannot be encoded", where=self.path(place))
        return content.tobytes(), (height, width)

    def _masked(self, place: Place, pixels: np.ndarray) -> np.ndarray:
        boxes = self.chips.boxes(place, *pixels.shape[:2])
        covered = np.zeros(pixels.shape[:2], bool)
        # Trained objects last: they stay whole.
        for trained in (False, True):
            for x1, y1, x2, y2 in boxes.boxes[boxes.trained == trained].astype(int).tolist():
                covered[y1 : y2 + 1, x1 : x2 + 1] = not trained
        painted = pixels.copy()
        painted[covered] = self.mask
        return painted

    def estimated_bytes(self) -> int:
        """About what all files take, from some pictures evenly spread over the set.

        Raises:
            DataError: an image cannot be read.
        """
        numbers = evenly(np.arange(len(self.chips)), _SAMPLE).tolist()
        images = ImageCache(0)
        sizes = [len(self.encoded(self.chips.place(n), images)[0]) for n in numbers]
        return round(sum(sizes) / max(len(sizes), 1) * len(self.chips))

    def write(self, num_threads: int, *, keep: bool) -> np.ndarray:
        """Writes all pictures; a file is there whole or not at all.

        Args:
            num_threads: that decode, cut and encode.
            keep: files that are there are those of an earlier call, and stay.

        Returns:
            (C, 2) int32 height and width of each picture.

        Raises:
            DataError: an image cannot be read.
            TrainingError: a file cannot be written.
        """
        sizes = np.zeros((len(self.chips), 2), np.int32)
        progress, done = Progress("chips", len(self.chips)), 0
        threads = DaemonThreads(num_threads, "sniper-export")
        waiting: deque[Future] = deque()
        try:
            for records in self._records_of_images():
                waiting.append(threads.submit(partial(self._write_image, records, sizes, keep)))
                if len(waiting) >= _WAITING * num_threads:
                    done += waiting.popleft().result()
                    progress.tell(done)
            while waiting:
                done += waiting.popleft().result()
                progress.tell(done)
        finally:
            threads.close()
        return sizes

    def _records_of_images(self) -> Iterator[list[int]]:
        """Records with chips that share an image, so that it is decoded once."""
        of_path: dict[str, list[int]] = {}
        for index in np.flatnonzero(np.diff(self.chips.chips.offsets)).tolist():
            of_path.setdefault(self.chips.records[index].image_path, []).append(index)
        yield from of_path.values()

    def _write_image(self, records: list[int], sizes: np.ndarray, keep: bool) -> int:
        images = ImageCache()
        count = 0
        for record in records:
            for place in self.chips.places(record):
                sizes[place.number] = self._write_chip(place, images, keep)
                count += 1
        return count

    def _write_chip(self, place: Place, images: ImageSource, keep: bool) -> tuple[int, int]:
        path = self.path(place)
        if keep and path.exists():
            with contextlib.suppress(DataError):  # cut off, by a crash of the machine: made anew
                width, height = image_size(path)
                return height, width
        content, size = self.encoded(place, images)
        # Moved into place when it is complete; not forced to the disk one by one, which would take
        # longer than all the rest: `image_size` finds what a crash of the machine cuts off.
        write_whole(path, lambda temporary: temporary.write_bytes(content))
        return size


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a small file that is there whole or not at all, unless the machine crashes.

    Raises:
        TrainingError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise TrainingError(
            "a file of the export cannot be written",
            where=path,
            got=error,
            fix="free some disk space or check the permissions, then run again: it goes on",
        ) from error


def check_space(folder: Path, num_bytes: int, there: int = 0) -> int:
    """Whether a disk has room.

    Args:
        folder: which need not be there yet.
        num_bytes: that will be written.
        there: bytes of them that are there already.

    Returns:
        Free bytes.

    Raises:
        TrainingError: there is not enough room.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    needed = max(num_bytes * _SURPLUS - there, 0)
    if needed > free:
        raise TrainingError(
            "the chips do not fit on this disk",
            where=place,
            got=f"{format_bytes(free)} free",
            expected=f"about {format_bytes(needed)}",
            fix="take another disk, or --jpeg 95, which needs a fraction of it",
        )
    return free


def format_bytes(count: float) -> str:
    """`1.3 GB`, `12.0 MB`, `5 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"

"""Detection on files: predictions as JSON and drawings, while the images pass."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sniper.data.ids import FileId
from sniper.data.sources import Skipped, Source
from sniper.errors import TrainingError
from sniper.inference.drawings import Drawings
from sniper.inference.prediction import Prediction
from sniper.inference.run_stats import RunStats
from sniper.progress import Progress

logger = logging.getLogger(__name__)


class StreamPredictor(Protocol):
    """What detects: `sniper.Predictor`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; index 0 is the background."""
        ...

    @property
    def category_ids(self) -> tuple[FileId, ...] | None:
        """Id of each class in the annotation files; None: not known."""
        ...

    def stream_with_pixels(self, source: Source) -> Iterator[tuple[Prediction, np.ndarray]]:
        """Predictions with the images (H, W, 3) uint8 BGR that they were made of."""
        ...

    def take_stats(self) -> RunStats:
        """Time of each stage and pixels since the last time."""
        ...


@dataclass(frozen=True)
class DetectSummary:
    """What a run has done: images, objects in them, what was left out, and the time it took."""

    images: int
    objects: int
    skipped: tuple[Skipped, ...]
    stats: RunStats


def detect_files(
    predictor: StreamPredictor,
    source: Source,
    json_path: Path,
    *,
    threshold: float,
    drawings: Drawings | None = None,
    about: dict[str, str] | None = None,
    on_prediction: Callable[[Prediction], None] | None = None,
) -> DetectSummary:
    """Detects on a source and writes one JSON file, and drawings if wanted.

    Memory does not grow with the source. However the run ends, the JSON is valid and holds all
    images that were finished; `complete` in it is true when the source came to its end.

    Args:
        predictor: the model.
        source: the images.
        json_path: the file; see `DetectionsJson` and `Prediction.as_dict`.
        threshold: objects with a lower score are left out of the file.
        drawings: where pictures and videos go; None for none.
        about: more to write at the beginning of the file.
        on_prediction: called with each prediction when it is written.

    Raises:
        DataError: an image cannot be read and the source leaves none out.
        DataError, TrainingError: a file cannot be written.
    """
    head = {**(about or {}), "threshold": threshold, "classes": list(predictor.class_names)}
    head["orientation"] = "upright"  # EXIF and the rotation of videos are applied
    if predictor.category_ids is not None:
        head["category_ids"] = list(predictor.category_ids)
    progress = Progress("images", source.expected)
    images, objects, complete = 0, 0, False
    predictor.take_stats()
    with DetectionsJson(json_path, head) as file:
        try:
            for prediction, pixels in predictor.stream_with_pixels(source):
                prediction = prediction.filter(threshold)
                entry = prediction.as_dict()
                if drawings is not None:
                    entry["drawing"] = str(drawings.add(prediction, pixels))
                file.add(entry)
                if on_prediction is not None:
                    on_prediction(prediction)
                objects += len(prediction)
                images += 1
                progress.tell(images)
            if drawings is not None:
                drawings.close()  # a video that is not complete is no success
            complete = True
        finally:
            file.close(source.skipped, complete=complete)
            if not complete:
                logger.info("%s holds the %d finished images", json_path, images)
    return DetectSummary(images, objects, tuple(source.skipped), predictor.take_stats())


class DetectionsJson:
    """Writes `{<head>, "images": [...], "skipped": [...], "complete": true | false}`.

    Every image is one line. The end of the file is written anew after each of them, so that what a
    killed run has done can be read; `complete` tells the two apart. Use it as a context manager.

    Args:
        path: the file, which is replaced; its folder is made when missing.
        head: what stands at the beginning: classes, model, threshold.

    Raises:
        OSError, TrainingError: it cannot be written.
    """

    def __init__(self, path: str | Path, head: Mapping[str, Any]) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._is_first = True
        begin = json.dumps(dict(head))[:-1] + (", " if head else "") + '"images": ['
        self._path, self._end = path, 0
        # Without a buffer: what a full disk refuses must not wait for the next try.
        self._file = open(path, "w+b", buffering=0)
        self._write(begin, [], complete=False)
        self._end = len(begin.encode())

    def add(self, image: Mapping[str, Any]) -> None:
        """Appends an image; the file is valid again when this returns, and when it raises.

        Raises:
            TrainingError: the disk is full.
        """
        line = ("\n" if self._is_first else ",\n") + json.dumps(image)
        self._write(line, [], complete=False)
        # An interruption before this line leaves the place of the broken rest.
        self._end, self._is_first = self._end + len(line.encode()), False

    def close(self, skipped: Sequence[Skipped] = (), *, complete: bool = False) -> None:
        """Notes what was left out and whether the run came to its end; idempotent."""
        if self._file.closed:
            return
        with self._file:
            self._write("", skipped, complete=complete)

    def __enter__(self) -> DetectionsJson:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, line: str, skipped: Sequence[Skipped], *, complete: bool) -> None:
        try:
            self._put(line + _ending(skipped, complete))
        except OSError as error:
            # The same end stood there before: there is room for it, and the file stays valid.
            with contextlib.suppress(OSError):
                self._put(_ending([], complete=False))
            raise TrainingError(
                "the results cannot be written; the images before are in the file",
                where=self._path,
                got=error,
                fix="free some disk space or check the permissions, then run again",
            ) from error

    def _put(self, text: str) -> None:
        """Writes everything behind the last image anew."""
        self._file.seek(self._end)
        rest = memoryview(text.encode())
        while rest:
            rest = rest[self._file.write(rest) :]
        self._file.truncate()


def _ending(skipped: Sequence[Skipped], complete: bool) -> str:
    left_out = json.dumps([{"name": image.name, "reason": image.reason} for image in skipped])
    return f'\n], "skipped": {left_out}, "complete": {json.dumps(complete)}}}\n'

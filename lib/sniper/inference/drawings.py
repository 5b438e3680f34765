"""Drawings of predictions: a picture for every image, a video for every video."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np

from sniper.data.video import Frame
from sniper.errors import ConfigError, SniperError
from sniper.inference.prediction import Prediction
from sniper.vis.draw import save_image
from sniper.vis.video_writer import VIDEO_ENDING, VideoFile

logger = logging.getLogger(__name__)


class Drawings:
    """Writes drawings; use it as a context manager, or call `close`.

    Where OpenCV cannot write videos, frames become pictures in a folder, and a message says so.

    Args:
        folder: drawings keep the names, and folders, of their images below it; two images whose
            names differ in the ending only keep it as well.
        ending: of pictures: `.jpg`, `.png` or `.pdf`.
        threshold: objects below this score are not drawn.
        every: the n-th frames of videos are there: their drawings run at fps / n.
        target: the one file to write, for a source of one image or video; None: see `folder`.
    """

    def __init__(
        self,
        folder: Path,
        ending: str = ".jpg",
        *,
        threshold: float = 0.5,
        every: int = 1,
        target: Path | None = None,
    ) -> None:
        self._folder, self._ending, self._target = folder, ending, target
        self._threshold, self._every = threshold, every
        self._taken: dict[Path, str] = {}
        self._video: VideoFile | None = None
        self._video_path = folder
        self._video_name: str | None = None

    def add(self, prediction: Prediction, pixels: np.ndarray) -> Path:
        """Draws a prediction on its image; returns the file.

        Raises:
            ConfigError: the drawing would replace its own image.
            DataError, TrainingError: a file cannot be written.
        """
        drawn = prediction.draw(pixels, self._threshold)
        if prediction.frame is not None:
            return self._add_frame(prediction, prediction.frame, drawn)
        self._end_video()
        path = self._path(prediction.name, self._ending)
        _refuse_original(path, prediction)
        save_image(path, drawn)
        return path

    def close(self) -> None:
        """Completes the last video. Idempotent.

        Raises:
            TrainingError: its file is not complete.
        """
        self._end_video()

    def __enter__(self) -> Drawings:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(SniperError):  # what happened first is what should be told
            self.close()

    def _add_frame(self, prediction: Prediction, frame: Frame, drawn: np.ndarray) -> Path:
        name = prediction.name.rsplit("#", 1)[0]
        if frame.index == 0 or name != self._video_name:
            self._begin_video(name, prediction, frame.fps / self._every)
        if self._video is not None:
            self._video.write(drawn)
            return self._video_path
        path = self._video_path.with_suffix("") / f"{frame.index:06d}{self._ending}"
        save_image(path, drawn)
        return path

    def _begin_video(self, name: str, prediction: Prediction, fps: float) -> None:
        self._end_video()
        path = self._path(name, VIDEO_ENDING)
        _refuse_original(path, prediction)
        self._video_name, self._video_path = name, path
        try:
            self._video = VideoFile(path, fps, prediction.width, prediction.height)
        except ConfigError as error:
            logger.warning("%s\nits frames are written as pictures instead", error)

    def _end_video(self) -> None:
        video, self._video, self._video_name = self._video, None, None
        if video is not None:
            video.close()

    def _path(self, name: str, ending: str) -> Path:
        if self._target is not None:
            return self._target
        path = self._folder / name
        plain = path.with_suffix(ending)
        # `a.png` and `a.tif` both want `a.jpg`: the second becomes `a.tif.jpg`.
        if self._taken.setdefault(plain, name) != name:
            plain = path.with_name(path.name + ending)
            self._taken[plain] = name
        return plain


def _refuse_original(path: Path, prediction: Prediction) -> None:
    if prediction.path is not None and path.exists() and path.samefile(prediction.path):
        raise ConfigError(
            "the drawing would replace its own image", where=path, fix="choose another folder"
        )

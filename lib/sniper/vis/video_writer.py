"""Writing video files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from sniper.errors import ConfigError, TrainingError
from sniper.vis.mp4_frames import mp4_frames

VIDEO_ENDING = ".mp4"
_CODEC = "mp4v"
# With less than this a frame may not fit any more; FFmpeg does not say when it drops one.
_LEAST_FREE_BYTES = 64 << 10


class VideoFile:
    """An MP4 file that grows frame by frame; use it as a context manager, or call `close`.

    Args:
        path: the file; its folder is made when missing.
        fps: frames per second, > 0.
        width: of the frames, px.
        height: of the frames, px.

    Raises:
        ConfigError: this OpenCV has no encoder, or the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, width: int, height: int) -> None:
        self._size = (width, height)
        self._path = path = Path(path)
        self._frames = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODEC), fps, self._size)
        if not self._writer.isOpened():
            raise ConfigError(
                f"a video cannot be written: no encoder for {_CODEC}, or no right to write there",
                where=path,
                got=f"OpenCV {cv2.__version__}, {width}x{height} px, {fps:g} frames per second",
                fix="install opencv-python-headless from PyPI, which brings FFmpeg along",
            )

    def write(self, image_bgr: np.ndarray) -> None:
        """Appends a frame (H, W, 3) uint8; one of another size is resized.

        Raises:
            TrainingError: the disk is full.
        """
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
            raise self._incomplete("the disk is full")
        if image_bgr.shape[1::-1] != self._size:
            image_bgr = cv2.resize(image_bgr, self._size)
        self._writer.write(np.ascontiguousarray(image_bgr))
        self._frames += 1

    def close(self) -> None:
        """Completes the file and looks whether all frames are in it. Idempotent.

        Raises:
            TrainingError: they are not: the disk is full, for example.
        """
        if not self._writer.isOpened():
            return
        # OpenCV and FFmpeg say nothing of what they could not write.
        self._writer.release()
        written = mp4_frames(self._path)
        if written != self._frames:
            raise self._incomplete(
                "a file that does not play" if written is None else f"{written} frames"
            )

    def _incomplete(self, got: str) -> TrainingError:
        return TrainingError(
            "a video could not be written to its end",
            where=self._path,
            got=got,
            expected=f"{self._frames} frames so far",
            fix="free some disk space, or write elsewhere",
        )

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

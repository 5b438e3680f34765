"""Writing video files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sniper.errors import ConfigError

VIDEO_ENDING = ".mp4"
_CODEC = "mp4v"


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
        path = Path(path)
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
        """Appends a frame (H, W, 3) uint8; one of another size is resized."""
        if image_bgr.shape[1::-1] != self._size:
            image_bgr = cv2.resize(image_bgr, self._size)
        self._writer.write(np.ascontiguousarray(image_bgr))

    def close(self) -> None:
        """Completes the file. Idempotent."""
        self._writer.release()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

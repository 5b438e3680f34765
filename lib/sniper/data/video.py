"""Frames of a video file, one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sniper.errors import DataError

logger = logging.getLogger(__name__)

VIDEO_ENDINGS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .ogv .3gp .mts .m2ts".split()
)
DEFAULT_FPS = 25.0  # where a container does not tell
# Containers round their durations, so a few frames may be missing from an intact file.
COMPLETE_SHARE = 0.98


@dataclass(frozen=True)
class Frame:
    """Where in a video a frame stands: its number from 0, its time and the frames per second."""

    index: int
    time_s: float
    fps: float


@dataclass(frozen=True)
class VideoInfo:
    """Size in px, frames per second, and frames as the container counts them, if it does."""

    width: int
    height: int
    fps: float
    num_frames: int | None


def is_video(path: str | Path) -> bool:
    """Whether the ending is that of a video file."""
    return Path(path).suffix.lower() in VIDEO_ENDINGS


def video_info(path: str | Path) -> VideoInfo:
    """What the container tells about a video.

    Raises:
        DataError: OpenCV cannot read the file.
    """
    with _opened(path) as capture:
        return _info(capture)


def read_frames(path: str | Path, every: int = 1) -> Iterator[tuple[Frame, np.ndarray]]:
    """The frames 0, every, 2 * every, ... with their pixels (H, W, 3) uint8 BGR.

    A file that ends early gives the frames that it has, and a warning.

    Raises:
        DataError: OpenCV cannot read the file, or finds no frame in it.
    """
    with _opened(path) as capture:
        info = _info(capture)
        index = -1
        while capture.grab():
            index += 1
            if index % every:
                continue
            good, pixels = capture.retrieve()
            if not good:
                break
            yield Frame(index, _time_s(capture, index, info.fps), info.fps), pixels
    if index < 0:
        raise DataError("a video has no frame that can be decoded", where=path)
    if info.num_frames is not None and index + 1 < COMPLETE_SHARE * info.num_frames:
        logger.warning(
            "%s ends after %d of its %d frames: the file is cut off or damaged",
            path,
            index + 1,
            info.num_frames,
        )


@contextmanager
def _opened(path: str | Path) -> Iterator[cv2.VideoCapture]:
    if not Path(path).is_file():
        raise DataError("there is no such video", where=path)
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(
                "a video cannot be opened",
                where=path,
                expected="a file that OpenCV's FFmpeg can decode",
                fix="check that it plays, or convert it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )
        yield capture
    finally:
        capture.release()


def _info(capture: cv2.VideoCapture) -> VideoInfo:
    fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return VideoInfo(
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        fps if np.isfinite(fps) and fps > 0 else DEFAULT_FPS,
        int(count) if np.isfinite(count) and count > 0 else None,
    )


def _time_s(capture: cv2.VideoCapture, index: int, fps: float) -> float:
    """The time stamp of the frame, or what its number says where there is none."""
    stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return round(stamp_s if stamp_s > 0 else index / fps, 6)

"""Frames of a video file, one by one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sniper.data.containers import refuse_playlist
from sniper.errors import DataError

logger = logging.getLogger(__name__)

VIDEO_ENDINGS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .ogv .3gp .mts .m2ts".split()
)
DEFAULT_FPS = 25.0  # where a container does not tell
# Containers round their durations, so a few frames may be missing from an intact file.
COMPLETE_SHARE = 0.98

_KEY_FRAME = ord("I")  # the size can change at these only
# In a long run of equal frames: every second look opens the file anew.
_SECOND_LOOK_EVERY = 64
# A frame that is decoded from another start differs by roundings from the same one.
_SAME_FRAME_LEVELS = 2.0


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
    """The frames 0, every, 2 * every, ... with their pixels (H, W, 3) uint8 BGR, upright.

    Raises:
        DataError: OpenCV cannot read the file, or finds no frame in it; behind the frames that it
            has, where it ends early or the size of the frames changes.
    """
    with _opened(path) as capture:
        info = _info(capture)
        index, begin = -1, 0.0
        repeats = _Repeats(path, every)
        while capture.grab():
            index += 1
            if index == 0:
                begin = _begin(capture)
            if index % every:
                continue
            good, pixels = capture.retrieve()
            if not good:
                break
            frame = Frame(index, _time_s(capture, index, info.fps), info.fps)
            yield from repeats.checked(frame, pixels, capture)
        yield from repeats.held
    if index < 0:
        raise DataError("a video has no frame that can be decoded", where=path)
    # Containers count from time 0, also where the first frame comes later.
    expected = None if info.num_frames is None else info.num_frames - max(begin, 0)
    if expected is not None and index + 1 < COMPLETE_SHARE * expected:
        raise DataError(
            "a video is cut off or damaged",
            where=path,
            got=f"{index + 1} frames",
            expected=f"{info.num_frames}, as its container says",
            fix="copy or download it again; what was found in its frames is kept",
        )


class _Repeats:
    """Finds frames that OpenCV only repeats, since it cannot follow a change of the frame size.

    Still pictures repeat frames, too. A second look, begun behind the change, tells them apart.
    """

    def __init__(self, path: str | Path, every: int) -> None:
        self.held: list[tuple[Frame, np.ndarray]] = []
        self._path = path
        self._every = every
        self._last: np.ndarray | None = None
        self._run = 0

    def checked(
        self, frame: Frame, pixels: np.ndarray, capture: cv2.VideoCapture
    ) -> list[tuple[Frame, np.ndarray]]:
        """The frames that may be given out: the first of a run of repeats waits for the second.

        Raises:
            DataError: they are repeated because the size has changed.
        """
        same = self._last is not None and np.array_equal(self._last, pixels)
        self._last = pixels
        self._run = self._run + 1 if same else 0
        if self._run and self._run % _SECOND_LOOK_EVERY == 2 and self._is_stale(frame, pixels):
            raise DataError(
                "the size of the frames changes within a video",
                where=self._path,
                got=f"a new size at about frame {frame.index - self._run * self._every + 1}",
                expected="one size for all frames",
                fix="convert it: ffmpeg -i INPUT -vf scale=WIDTH:HEIGHT OUTPUT.mp4",
            )
        ready, self.held = [*self.held, (frame, pixels)], []
        may_be_new = self._every > 1 or capture.get(cv2.CAP_PROP_FRAME_TYPE) == _KEY_FRAME
        if self._run == 1 and may_be_new:
            self.held = [ready.pop()]
        return ready

    def _is_stale(self, frame: Frame, pixels: np.ndarray) -> bool:
        with _opened(self._path) as capture:
            capture.set(cv2.CAP_PROP_POS_FRAMES, frame.index)
            good, again = capture.read()
        return bool(good) and cv2.absdiff(again, pixels).mean() > _SAME_FRAME_LEVELS


@contextmanager
def _opened(path: str | Path) -> Iterator[cv2.VideoCapture]:
    if not Path(path).is_file():
        raise DataError("there is no such video", where=path)
    refuse_playlist(path)
    # FFmpeg takes what stands in front of a colon for a protocol, but not in absolute paths.
    capture = cv2.VideoCapture(os.path.abspath(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
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


def _begin(capture: cv2.VideoCapture) -> float:
    """The time stamp of the frame in frames."""
    return float(capture.get(cv2.CAP_PROP_PTS))


def _time_s(capture: cv2.VideoCapture, index: int, fps: float) -> float:
    """The time stamp of the frame, or what its number says where there is none."""
    stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return round(stamp_s if stamp_s > 0 else index / fps, 6)

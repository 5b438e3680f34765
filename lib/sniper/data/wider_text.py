"""The annotation text of WIDER FACE: image, number of faces, a line for each face."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from sniper.data.image_endings import has_image_ending
from sniper.data.listings import read_text
from sniper.data.problems import (
    BROKEN_ENTRY,
    DUPLICATE_NAME,
    OnProblem,
    Problem,
    first_lines,
    stop_at_errors,
)
from sniper.errors import DataError

# Behind x, y, width and height of every face.
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
INVALID = ATTRIBUTES.index("invalid")
_SIDES = 4
_FACE = "x y width height, or these and blur expression illumination invalid occlusion pose"


@dataclass(frozen=True, eq=False)
class WiderTable:
    """The n images and N faces of an annotation file, in its order.

    Attributes:
        names: `<event>/<name>.jpg` of each image.
        offsets: (n + 1,) int64: image i owns the faces offsets[i]:offsets[i + 1].
        boxes: (N, 4) float64 x y width height as they are written, px.
        attributes: (N, 6) int8, columns as in `ATTRIBUTES`; 0 where they are not given.
        lines: (N,) int64 line of each face, from 1, for messages.
    """

    names: tuple[str, ...]
    offsets: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray
    lines: np.ndarray


def read_annotations(path: str | Path, on_problem: OnProblem = stop_at_errors) -> WiderTable:
    """Reads `wider_face_<set>_bbx_gt.txt`.

    An image without faces has the number 0, behind which newer files have one line of zeros; in
    older ones it has the number 1 and that line. None of these lines is a face.

    Args:
        path: the file.
        on_problem: hears of every line that cannot be read and of images that are there twice;
            when it comes back, the line, or the second entry, is left out.

    Raises:
        DataError: the file cannot be read or names no image; by default also for the first broken
            line, with its number.
    """
    path = Path(path)
    reader = _Reader(path, on_problem)
    lines = read_text(path, "annotation file of the faces").splitlines()
    place = 0
    while place < len(lines):
        place = reader.take_image(lines, place) if lines[place].strip() else place + 1
    if not reader.names:
        raise DataError(
            "the annotation file of the faces names no image", where=path, expected=_expected()
        )
    return reader.table()


def read_image_names(path: str | Path) -> tuple[str, ...]:
    """The images of a set without annotations: `wider_face_test_filelist.txt`.

    Raises:
        DataError: the file cannot be read, or a line is no image or there twice.
    """
    path = Path(path)
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(path, "list of images").splitlines(), start=1):
        name = _image_name(line)
        if line.strip() and (name is None or name in names):
            raise DataError(
                "the list of images is broken",
                where=f"{path}, line {number}",
                got=repr(line.strip()),
                expected="<event>/<name>.jpg, every image once",
            )
        if name is not None:
            names[name] = None
    return tuple(names)


def result_name(name: str) -> str:
    """What the result file of an image is called, without `.txt`: its name without ending."""
    return posixpath.splitext(name)[0]


class _Reader:
    """Collects what the lines say."""

    def __init__(self, path: Path, on_problem: OnProblem) -> None:
        self._path, self._on_problem = path, on_problem
        self.names: list[str] = []
        self._known: dict[str, int] = {}
        self._counts: list[int] = []
        self._faces: list[list[float]] = []
        self._lines: list[int] = []

    def table(self) -> WiderTable:
        faces = np.array(self._faces, np.float64).reshape(-1, _SIDES + len(ATTRIBUTES))
        return WiderTable(
            names=tuple(self.names),
            offsets=np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64),
            boxes=faces[:, :_SIDES],
            attributes=faces[:, _SIDES:].astype(np.int8),
            lines=np.array(self._lines, np.int64),
        )

    def take_image(self, lines: Sequence[str], start: int) -> int:
        """Reads the image whose name stands in a line; where the next one should begin."""
        name = _image_name(lines[start])
        if name is None:
            self._tell(start, lines, "the name of an image, <event>/<name>.jpg")
            return _next_image(lines, start + 1)
        number = lines[start + 1].strip() if start + 1 < len(lines) else "the end of the file"
        if not number.isdecimal():
            self._tell(start + 1, lines, f"the number of faces of {name}", number)
            return _next_image(lines, start + 1)
        end, faces = self._take_faces(lines, start + 2, int(number), name)
        key = result_name(name)
        if key in self._known:
            # Two files of one name but its ending would share one result file.
            error = self._error(
                start, name, f"every image once; it is in line {self._known[key]} too"
            )
            self._on_problem(
                Problem(DUPLICATE_NAME, str(self._path), 1, [first_lines(error)], error)
            )
            return end
        self._known[key] = start + 1
        self.names.append(name)
        self._counts.append(len(faces))
        for line, numbers in faces:
            self._lines.append(line + 1)
            self._faces.append(numbers)
        return end

    def _take_faces(
        self, lines: Sequence[str], place: int, count: int, name: str
    ) -> tuple[int, list[tuple[int, list[float]]]]:
        """Line index and numbers of the faces of an image, and where the next image begins."""
        faces: list[tuple[int, list[float]]] = []
        end = place + count
        while place < end:
            line = lines[place].strip() if place < len(lines) else "the end of the file"
            numbers = _face(line)
            if numbers is not None:
                faces.append((place, numbers))
            elif place >= len(lines) or _image_name(line) is not None:
                expected = f"face {count - (end - place) + 1} of {count} of {name}"
                self._tell(place, lines, expected, line)
                return place, faces
            else:
                self._tell(place, lines, _FACE)
            place += 1
        zeros = [face for face in faces if not any(face[1][:_SIDES])]
        if count == 1 and zeros:
            faces = []
        if count == 0 and place < len(lines) and not any(_face(lines[place]) or [1]):
            place += 1
        return place, faces

    def _tell(
        self, place: int, lines: Sequence[str], expected: str, got: str | None = None
    ) -> None:
        error = self._error(place, lines[place].strip() if got is None else got, expected)
        self._on_problem(Problem(BROKEN_ENTRY, str(self._path), 1, [first_lines(error)], error))

    def _error(self, place: int, got: str, expected: str) -> DataError:
        return DataError(
            "a line of the annotations of the faces cannot be read",
            where=f"{self._path}, line {place + 1}",
            got=repr(got),
            expected=expected,
        )


def _expected() -> str:
    return f"for each image its name, the number of faces, and a line for each: {_FACE}"


def _image_name(line: str) -> str | None:
    """The name of an image below the folder of the set, or None."""
    name = line.strip().replace("\\", "/")
    if not has_image_ending(name):
        return None
    path = PurePosixPath(name)
    # Result files are named after images: nothing may lead out of their folder.
    return None if path.is_absolute() or ".." in path.parts else str(path)


def _next_image(lines: Sequence[str], place: int) -> int:
    while place < len(lines) and _image_name(lines[place]) is None:
        place += 1
    return place


def _face(line: str) -> list[float] | None:
    """Box and attributes; None if it is something else."""
    words = line.split()
    if len(words) not in (_SIDES, _SIDES + len(ATTRIBUTES)):
        return None
    try:
        numbers = [float(word) for word in words]
        flags = [int(word) for word in words[_SIDES:]]
    except ValueError:
        return None
    if not math.isfinite(sum(numbers)) or any(not 0 <= flag <= 9 for flag in flags):
        return None
    return numbers + [0.0] * (_SIDES + len(ATTRIBUTES) - len(numbers))

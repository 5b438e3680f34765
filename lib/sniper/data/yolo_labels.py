"""YOLO label files: one object a line, in fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sniper.errors import DataError

IMAGES, LABELS, ENDING = "images", "labels", ".txt"
BOX_NUMBERS, LEAST_OUTLINE_NUMBERS = 4, 6
# Rounded numbers may lie a little outside; those of other units lie far out.
SLACK = 0.01


@dataclass(frozen=True)
class YoloObject:
    """One line.

    Attributes:
        line: its number in the file, from 1.
        class_index: from 0.
        numbers: centre x, centre y, width and height of a box, or x y x y ... of an outline, in
            fractions of width and height of the image.
    """

    line: int
    class_index: int
    numbers: tuple[float, ...]

    @property
    def is_outline(self) -> bool:
        """Whether the numbers are an outline."""
        return len(self.numbers) > BOX_NUMBERS

    def box(self) -> tuple[float, float, float, float]:
        """x, y, width and height in fractions; that of an outline holds it."""
        if not self.is_outline:
            x, y, width, height = self.numbers
            return x - width / 2, y - height / 2, width, height
        xs, ys = self.numbers[::2], self.numbers[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)

    def outline(self, width: int, height: int) -> list[float]:
        """x y x y ... in px; empty for a box."""
        if not self.is_outline:
            return []
        return [number * (height if i % 2 else width) for i, number in enumerate(self.numbers)]


def label_path(image: str | Path) -> Path:
    """Where the labels of an image are: `.../images/a/1.jpg` -> `.../labels/a/1.txt`.

    The last folder of that name counts. Without one the labels stand beside the image.
    """
    path = Path(image)
    parts = list(path.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == IMAGES:
            parts[place] = LABELS
            break
    return Path(*parts).with_suffix(ENDING)


def read_labels(
    path: Path, num_classes: int, keypoint_numbers: int = 0
) -> tuple[list[YoloObject], list[tuple[int, DataError]]]:
    """The objects of a label file, and its broken lines with what is wrong.

    Args:
        path: the file.
        num_classes: of the set.
        keypoint_numbers: that stand behind a box in sets for poses; they are left out.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError("a label file cannot be read", where=path, got=error) from error
    objects: list[YoloObject] = []
    broken: list[tuple[int, DataError]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            objects.append(_object(fields, number, num_classes, keypoint_numbers))
        except ValueError as problem:
            broken.append((number, _broken(path, number, line, str(problem))))
    return objects, broken


def _object(
    fields: Sequence[str], line: int, num_classes: int, keypoint_numbers: int
) -> YoloObject:
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise ValueError("it is not made of numbers") from None
    if not all(map(math.isfinite, values)):
        raise ValueError("a number is not finite")
    klass, numbers = values[0], tuple(values[1:])
    if klass != int(klass) or not 0 <= klass < num_classes:
        raise ValueError(f"class {fields[0]} is none of 0 to {num_classes - 1}")
    if keypoint_numbers and len(numbers) == BOX_NUMBERS + keypoint_numbers:
        numbers = numbers[:BOX_NUMBERS]
    if len(numbers) != BOX_NUMBERS and (len(numbers) < LEAST_OUTLINE_NUMBERS or len(numbers) % 2):
        hint = ": are these results, with a score?" if len(numbers) == BOX_NUMBERS + 1 else ""
        raise ValueError(f"it has {len(numbers)} numbers behind the class{hint}")
    if min(numbers) < -SLACK or max(numbers) > 1 + SLACK:
        raise ValueError("a number is no fraction of the image, 0 to 1")
    if len(numbers) == BOX_NUMBERS and not (numbers[2] > 0 and numbers[3] > 0):
        raise ValueError("the box has no width or no height")
    return YoloObject(line, int(klass), numbers)


def _broken(path: Path, number: int, line: str, problem: str) -> DataError:
    return DataError(
        f"line {number} of a label file is broken: {problem}",
        where=f"{path}, line {number}",
        got=repr(line[:120]),
        expected="class x_centre y_centre width height, or class x y x y x y ..., in fractions of "
        "the image",
    )


def label_lines(objects: Sequence[tuple[int, Sequence[float]]]) -> Iterator[str]:
    """Lines of a label file.

    Args:
        objects: class index from 0, and numbers as `YoloObject` has them.
    """
    for class_index, numbers in objects:
        # Ten digits: less than a millionth px of any image, and no float says more in fewer.
        yield " ".join([str(class_index), *(f"{number:.10g}" for number in numbers)])

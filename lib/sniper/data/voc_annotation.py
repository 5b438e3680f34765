"""One annotation file of Pascal VOC: XML read without entities, checked element by element."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from sniper.data.problems import (
    BROKEN_ENTRY,
    UNCLEAR_DIFFICULT,
    OnProblem,
    Problem,
    first_lines,
    stop_at_errors,
)
from sniper.errors import DataError
from sniper.progress import Progress

# Real files have a few kB; a thousand objects make 300 kB.
MAX_XML_BYTES = 16 << 20

# Words that labelling tools write in place of 1 and 0, and for "nobody said".
_YES, _NO = frozenset(("true", "yes", "y", "t")), frozenset(("", "false", "no", "n", "f"))
_UNCLEAR = frozenset(("unspecified", "unknown", "none", "null", "n/a"))

_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.:-]*)["'][^>]*\?>""")

# With a byte order mark, or the first character of XML in two bytes.
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object: corners in 0-based image px as written (not clipped), class index, flag.

    A box that ends before it starts is counted with those without extent by the reader of the set.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    class_index: int
    difficult: bool


class VocAnnotation(NamedTuple):
    """An annotation file: size in px (0 where the file does not say), and the objects.

    `unclear` counts objects whose `difficult` says neither yes nor no; they are not difficult.
    """

    width: int
    height: int
    objects: list[VocObject]
    unclear: int = 0


def read_xml_bytes(path: str | Path) -> bytes:
    """Content of an annotation file.

    Raises:
        DataError: it cannot be read, or is larger than any annotation can be.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise DataError("the annotation file cannot be read", where=path, got=error) from error
    if len(content) > MAX_XML_BYTES:
        raise DataError(
            "the annotation file is too large",
            where=path,
            got=f"more than {MAX_XML_BYTES >> 20} MB",
            expected="some kB of XML",
        )
    return content


def read_annotation(path: str | Path, class_index: Mapping[str, int]) -> VocAnnotation:
    """Reads and checks an annotation file.

    Coordinates count from 1 in the file and from 0 in the result. A missing `difficult` means 0,
    a missing or zero `size` means unknown.

    Args:
        path: the XML file.
        class_index: class name in lower case -> index 1...

    Raises:
        DataError: the file or an element is broken; the message names both.
    """
    root = parse_annotation(read_xml_bytes(path), path)
    width, height = image_size_of(root, path)
    elements = list(root.iterfind("object"))
    objects = [
        _object(element, number, path, class_index)
        for number, element in enumerate(elements, start=1)
    ]
    unclear = sum(_difficult_text(element) in _UNCLEAR for element in elements)
    return VocAnnotation(width, height, objects, unclear)


def parse_annotation(content: bytes, path: str | Path) -> ElementTree.Element:
    """The tree of an annotation; document types, and with them all entities, are refused.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        DataError: it is no XML, or no annotation.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(name: str, *_: object) -> None:
        raise _broken(path, f"it declares the document type {name!r}", "plain XML without one")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(_decoded(content), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: unknown encoding
        if _ENCODING.match(content) is None and not _is_unicode(content):
            raise _in_code_page(path) from error
        raise _broken(path, f"it is no valid XML: {error}") from error
    root = builder.close()
    if root.tag != "annotation":
        raise _broken(path, f"its root is <{root.tag}>", "<annotation>")
    return root


def _is_unicode(content: bytes) -> bool:
    """Whether a text that declares no encoding is in one that needs no declaration."""
    if content.startswith(_UTF16_STARTS):
        return True
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _in_code_page(path: str | Path) -> DataError:
    return _broken(
        path,
        "it declares no encoding, and its text is not in UTF-8",
        "XML in UTF-8, or with the name of its encoding in the first line",
        fix='write <?xml version="1.0" encoding="windows-1252"?> in front, or iconv -f '
        f"WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > new.xml, with the encoding it has",
    )


def _decoded(content: bytes) -> bytes | str:
    """The text in the encoding that it declares; bytes where the parser knows better.

    The parser has a few encodings of its own, and none with several bytes a character but Unicode.

    Raises:
        LookupError: Python has no such encoding.
        ValueError: the content is not in it.
    """
    declared = _ENCODING.match(content)
    if declared is None:
        return content
    encoding = declared[1].decode("ascii")
    if encoding.lower().startswith(("utf-16", "utf-32")):
        encoding = "utf-8"  # in UTF-16 the declaration could not have been read like that
    text = content.decode(encoding)
    # A text needs no declaration, and one that contradicts it is an error.
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text)


def image_size_of(root: ElementTree.Element, path: str | Path) -> tuple[int, int]:
    """Width and height of the image in px, (0, 0) where the annotation does not say.

    Raises:
        DataError: they are no whole numbers.
    """
    sides = []
    for tag in ("width", "height"):
        text = (root.findtext(f"size/{tag}") or "").strip()
        value = _number(text, f"size/{tag}", path) if text else 0.0
        if value < 0 or value != int(value):
            raise _broken(path, f"size/{tag} is {text!r}", "a whole number of px")
        sides.append(int(value))
    return (sides[0], sides[1]) if all(sides) else (0, 0)


def _object(
    element: ElementTree.Element, number: int, path: str | Path, class_index: Mapping[str, int]
) -> VocObject:
    name = (element.findtext("name") or "").strip().lower()
    label = f"object {number}" + (f" ({name})" if name else "")
    if not name:
        raise _broken(path, f"{label} has no <name>")
    if name not in class_index:
        raise _broken(
            path,
            f"{label} is of no known class",
            ", ".join(class_index),
            fix="correct the name, or list the classes of your set in classes.txt",
        )
    x1, y1, x2, y2 = (corner - 1 for corner in corners_of(element, label, path))
    return VocObject(x1, y1, x2, y2, class_index[name], _flag(element, label, path))


def corners_of(element: ElementTree.Element, label: str, path: str | Path) -> list[float]:
    """x1 y1 x2 y2 of an object as they are written.

    Args:
        element: the object.
        label: its name in messages.
        path: of the file, for messages.

    Raises:
        DataError: one is missing or no number.
    """
    return [_corner(element, tag, label, path) for tag in _CORNERS]


def _corner(element: ElementTree.Element, tag: str, label: str, path: str | Path) -> float:
    text = element.findtext(f"bndbox/{tag}")
    if text is None:
        raise _broken(path, f"{label} has no <{tag}> in its <bndbox>")
    return _number(text.strip(), f"<{tag}> of {label}", path)


def _flag(element: ElementTree.Element, label: str, path: str | Path) -> bool:
    text = _difficult_text(element)
    if text in _YES or text in _NO or text in _UNCLEAR:
        return text in _YES
    return _number(text, f"<difficult> of {label}", path) != 0


def _difficult_text(element: ElementTree.Element) -> str:
    return (element.findtext("difficult") or "").strip().lower()


def _number(text: str, what: str, path: str | Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _broken(path, f"{what} is {text!r}", "a number")
    return value


def _broken(
    path: str | Path, problem: str, expected: str | None = None, *, fix: str | None = None
) -> DataError:
    return DataError(
        f"the annotation file is broken: {problem}", where=path, expected=expected, fix=fix
    )


@dataclass(frozen=True, eq=False)
class VocTable:
    """All annotations of a set, image by image in the order of the list.

    Attributes:
        widths: (n,) int64, px; 0 where the annotation does not say.
        heights: (n,) int64, px; the same.
        offsets: (n + 1,) int64; image i owns boxes[offsets[i]:offsets[i + 1]].
        boxes: (N, 4) float32 corners in 0-based image px, as annotated: neither clipped nor
            truncated, difficult objects included.
        classes: (N,) int32, 1...
        difficult: (N,) bool.
    """

    widths: np.ndarray
    heights: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray

    @property
    def inverted(self) -> np.ndarray:
        """(N,) bool: the box ends before it starts."""
        return (self.boxes[:, 2:] < self.boxes[:, :2]).any(axis=1)


TABLE_FIELDS = tuple(field.name for field in fields(VocTable))


def empty_table(num_images: int) -> VocTable:
    """The table of a set without annotations."""
    return _table([0] * num_images, [0] * num_images, [0] * num_images, array("d"))


def read_table(
    paths: Sequence[str],
    class_index: Mapping[str, int],
    on_problem: OnProblem = stop_at_errors,
) -> VocTable:
    """Reads the annotation files of a set.

    Args:
        paths: one XML file per image; "" where there is none.
        class_index: class name in lower case -> index 1...
        on_problem: hears of broken files; when it comes back, their images have no objects.

    Raises:
        DataError: a file is broken; the message names the file and the element.
    """
    widths, heights, counts = [], [], []
    numbers = array("d")
    unclear: list[str] = []
    progress = Progress("annotation files read", len(paths))
    for done, path in enumerate(paths, start=1):
        annotation = VocAnnotation(0, 0, [])
        try:
            annotation = read_annotation(path, class_index) if path else annotation
        except DataError as error:
            on_problem(Problem(BROKEN_ENTRY, path, 1, [first_lines(error)], error))
        widths.append(annotation.width)
        heights.append(annotation.height)
        counts.append(len(annotation.objects))
        unclear += [path] * annotation.unclear
        for item in annotation.objects:
            numbers.extend(item)
        progress.tell(done)
    if unclear:
        folder = os.path.dirname(unclear[0])
        on_problem(Problem(UNCLEAR_DIFFICULT, folder, len(unclear), unclear))
    return _table(widths, heights, counts, numbers)


def _table(widths: list[int], heights: list[int], counts: list[int], numbers: array) -> VocTable:
    rows = np.frombuffer(numbers, np.float64).reshape(-1, len(VocObject._fields))
    return VocTable(
        widths=np.array(widths, np.int64),
        heights=np.array(heights, np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=rows[:, :4].astype(np.float32),
        classes=rows[:, 4].astype(np.int32),
        difficult=rows[:, 5] != 0,
    )


def annotations_sha256(names: Iterable[str], paths: Iterable[str]) -> str:
    """One checksum over the names of the images and the content of their annotation files."""
    digest = hashlib.sha256()
    for name, path in zip(names, paths):
        content = read_xml_bytes(path)
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()

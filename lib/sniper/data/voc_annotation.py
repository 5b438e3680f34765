"""One annotation file of Pascal VOC: XML read without entities, checked element by element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from sniper.errors import DataError

# Real files have a few kB; a thousand objects make 300 kB.
MAX_XML_BYTES = 16 << 20

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object: corners in 0-based image px as written (not clipped), class index, flag."""

    x1: float
    y1: float
    x2: float
    y2: float
    class_index: int
    difficult: bool


class VocAnnotation(NamedTuple):
    """An annotation file: size in px (0 where the file does not say), and the objects."""

    width: int
    height: int
    objects: list[VocObject]


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
    root = _parse(read_xml_bytes(path), path)
    if root.tag != "annotation":
        raise _broken(path, f"its root is <{root.tag}>", "<annotation>")
    width, height = _size(root, path)
    objects = [
        _object(element, number, path, class_index)
        for number, element in enumerate(root.iterfind("object"), start=1)
    ]
    return VocAnnotation(width, height, objects)


def _parse(content: bytes, path: str | Path) -> ElementTree.Element:
    """The tree of an XML text; document types, and with them all entities, are refused."""
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
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: unknown encoding
        raise _broken(path, f"it is no valid XML: {error}") from error
    return builder.close()


def _size(root: ElementTree.Element, path: str | Path) -> tuple[int, int]:
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
    corners = [_corner(element, tag, label, path) for tag in _CORNERS]
    if corners[2] < corners[0] or corners[3] < corners[1]:
        raise _broken(path, f"the <bndbox> of {label} ends before it starts: {corners}")
    x1, y1, x2, y2 = (corner - 1 for corner in corners)
    return VocObject(x1, y1, x2, y2, class_index[name], _flag(element, label, path))


def _corner(element: ElementTree.Element, tag: str, label: str, path: str | Path) -> float:
    text = element.findtext(f"bndbox/{tag}")
    if text is None:
        raise _broken(path, f"{label} has no <{tag}> in its <bndbox>")
    return _number(text.strip(), f"<{tag}> of {label}", path)


def _flag(element: ElementTree.Element, label: str, path: str | Path) -> bool:
    text = (element.findtext("difficult") or "").strip()
    return _number(text, f"<difficult> of {label}", path) != 0 if text else False


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

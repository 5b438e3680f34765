"""Sets as COCO, Pascal VOC and YOLO files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import yaml

from sniper.data.ids import FileId
from sniper.data.image_endings import IMAGE_ENDINGS, has_image_ending
from sniper.data.image_header import image_size
from sniper.data.yolo import FILE_NAME as YOLO_FILE
from sniper.data.yolo_labels import label_lines, label_path
from sniper.errors import DataError
from sniper.tools.convert.content import Conversion, Picture, PutImage, Thing

VOC_NAME = "Set"
# A box and the extent of its outline that differ by more are two opinions.
SAME_BOX_PX = 1.0


class Target(NamedTuple):
    """A format to write.

    Attributes:
        write: writes all sets into a folder.
        set_name: the name of a set in recipes.
        keeps_ignored: it has a place for objects that need not be found.
    """

    write: Callable[[Path, Conversion, PutImage], None]
    set_name: Callable[[str], str]
    keeps_ignored: bool


def write_coco(folder: Path, conversion: Conversion, put: PutImage) -> None:
    """`annotations/instances_<set>.json` and `images/<set>/`."""
    classes = conversion.classes
    ids = classes.ids or tuple(range(len(classes.names)))
    categories = [{"id": i, "name": name} for i, name in zip(ids[1:], classes.names[1:])]
    for one in conversion.sets:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for picture in one.pictures:
            put(picture.path, folder / "images" / one.name / picture.name)
            size = {"width": picture.width, "height": picture.height}
            images.append({"id": picture.image_id, "file_name": picture.name, **size})
            for thing in picture.things:
                entry = {"id": len(annotations) + 1, "image_id": picture.image_id}
                annotations.append({**entry, **_coco_object(thing, ids)})
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write(folder / "annotations" / f"instances_{one.name}.json", json.dumps(content))


def _coco_object(thing: Thing, ids: Sequence[FileId]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "category_id": ids[thing.class_index],
        "bbox": list(thing.box),
        "area": _area(thing),
        "iscrowd": int(thing.crowd),
    }
    if thing.outlines:
        entry["segmentation"] = [list(part) for part in thing.outlines]
    if thing.ignored and not thing.crowd:
        entry["ignore"] = 1
    return entry


def _area(thing: Thing) -> float:
    """Of the outlines by the shoelace formula, or of the box."""
    total = 0.0
    for part in thing.outlines:
        xs, ys = part[::2], part[1::2]
        pairs = zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]))
        total += abs(sum(x1 * y2 - x2 * y1 for x1, y1, x2, y2 in pairs)) / 2
    return total or thing.box[2] * thing.box[3]


def write_voc(folder: Path, conversion: Conversion, put: PutImage) -> None:
    """`VOCSet/{ImageSets/Main,JPEGImages,Annotations}` with `classes.txt`."""
    root = folder / f"VOC{VOC_NAME}"
    names = conversion.classes.names
    _write(root / "classes.txt", "\n".join(names[1:]) + "\n")
    taken: dict[str, str] = {}
    for one in conversion.sets:
        stems = []
        for picture in one.pictures:
            ending = Path(picture.name).suffix
            stem = _voc_stem(picture, taken)
            stems.append(stem)
            if not has_image_ending(picture.name):
                raise DataError(
                    "Pascal VOC has no images with such an ending",
                    where=picture.path,
                    got=ending,
                    expected=", ".join(IMAGE_ENDINGS),
                )
            put(picture.path, root / "JPEGImages" / f"{stem}{ending}")
            text = _voc_xml(f"{stem}{ending}", picture, names, conversion.losses)
            _write(root / "Annotations" / f"{stem}.xml", text)
        _write(root / "ImageSets" / "Main" / f"{one.name}.txt", "\n".join(stems) + "\n")


def _voc_stem(picture: Picture, taken: dict[str, str]) -> str:
    """A name in the one folder of VOC: folders become part of it; a taken one gets a number."""
    stem = "_".join(Path(picture.name).with_suffix("").parts).replace(" ", "_")
    name, number = stem, 1
    while taken.setdefault(name, picture.path) != picture.path:
        number += 1
        name = f"{stem}_{number}"
    return name


def _voc_xml(file_name: str, picture: Picture, names: Sequence[str], losses: Counter[str]) -> str:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for thing in picture.things:
        losses["outlines of objects (Pascal VOC has boxes only)"] += bool(thing.outlines)
        losses["crowd regions, which become difficult objects"] += thing.crowd
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = names[thing.class_index]
        ElementTree.SubElement(element, "difficult").text = str(int(thing.ignored))
        box = ElementTree.SubElement(element, "bndbox")
        x, y, width, height = thing.box
        # The first pixel is 1, and the last one belongs to the box.
        corners = (x + 1, y + 1, x + width, y + height)
        for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners):
            ElementTree.SubElement(box, tag).text = f"{round(corner, 4):.10g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def write_yolo(folder: Path, conversion: Conversion, put: PutImage) -> None:
    """`data.yaml`, `images/<set>/` and `labels/<set>/`."""
    taken: dict[Path, str] = {}
    for one in conversion.sets:
        for picture in one.pictures:
            image = folder / "images" / one.name / picture.name
            labels = label_path(image)
            if taken.setdefault(labels, picture.path) != picture.path:
                raise DataError(
                    "two images would have one label file",
                    where=labels.name,
                    got=f"{taken[labels]} and {picture.path}",
                    fix="name them differently: the ending does not count",
                )
            _refuse_turned(picture)
            put(picture.path, image)
            _write(labels, _yolo_text(picture, conversion.losses))
    names = dict(enumerate(conversion.classes.names[1:]))
    sets = {one.name: f"images/{one.name}" for one in conversion.sets}
    content = {"path": ".", **sets, "names": names}
    _write(folder / YOLO_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _refuse_turned(picture: Picture) -> None:
    """YOLO programs turn pictures as EXIF says before they look at labels."""
    size = picture.width, picture.height
    if size != size[::-1] == image_size(picture.path):
        raise DataError(
            "the boxes of an image count its stored pixels, and YOLO programs would turn it",
            where=picture.path,
            got=f"boxes in {size[0]}x{size[1]} px, shown as {size[1]}x{size[0]}",
            fix="take the EXIF orientation out of such files, or turn pixels and boxes",
        )


def _yolo_text(picture: Picture, losses: Counter[str]) -> str:
    objects = []
    for thing in picture.things:
        if thing.ignored:
            kind = "crowd regions" if thing.crowd else "objects that need not be found (difficult)"
            losses[f"{kind}: YOLO has no flag for them, they are left out"] += 1
            continue
        numbers = _yolo_outline(thing, losses) or _yolo_box(thing.box)
        sides = (picture.width, picture.height)
        fractions = [_fraction(value, sides[i % 2]) for i, value in enumerate(numbers)]
        objects.append((thing.class_index - 1, fractions))
    return "".join(f"{line}\n" for line in label_lines(objects))


def _fraction(value: float, side: int) -> float:
    return min(max(value / side, 0.0), 1.0)


def _yolo_box(box: tuple[float, float, float, float]) -> list[float]:
    x, y, width, height = box
    return [x + width / 2, y + height / 2, width, height]


def _yolo_outline(thing: Thing, losses: Counter[str]) -> list[float]:
    """One outline; parts are joined by lines without width. Empty without a mask."""
    if not thing.outlines:
        return []
    first, *others = thing.outlines
    numbers = list(first)
    for part in others:
        # There, around, and back the same way.
        numbers += [*first[:2], *part, *part[:2]]
    if others:
        numbers += first[:2]
        losses["objects in several parts, whose outlines are joined to one"] += 1
    xs, ys = numbers[::2], numbers[1::2]
    extent = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    if any(abs(a - b) > SAME_BOX_PX for a, b in zip(extent, thing.box)):
        losses["boxes that are not the extent of their outline (YOLO keeps the outline)"] += 1
    return numbers


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


TARGETS = {
    "coco": Target(write_coco, lambda name: name, keeps_ignored=True),
    "voc": Target(write_voc, lambda name: f"{VOC_NAME}_{name}", keeps_ignored=True),
    "yolo": Target(write_yolo, lambda name: name, keeps_ignored=False),
}

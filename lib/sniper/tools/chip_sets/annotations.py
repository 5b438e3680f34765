"""Annotations of exported chips: COCO and YOLO files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import yaml

from sniper.data.yolo import FILE_NAME as YOLO_FILE
from sniper.data.yolo_labels import label_lines, label_path
from sniper.files import atomic_write
from sniper.progress import Progress
from sniper.tools.chip_sets.content import ChipBoxes
from sniper.tools.chip_sets.pictures import PictureFiles, write_whole

SET_NAME = "chips"
TRAINED = "trained"

# Writes the annotations of pictures with sizes (C, 2); returns boxes by what became of them.
WriteAnnotations = Callable[[Path, PictureFiles, np.ndarray], "Counter[str]"]


def write_coco(folder: Path, files: PictureFiles, sizes: np.ndarray) -> Counter[str]:
    """`annotations/instances_chips.json`: boxes that are not trained are crowd regions in it.

    COCO programs leave out what matches a crowd region, as training does with these boxes. They
    have no `ignore` flag: mmdetection would drop such a box, and learn the object as background.

    Args:
        folder: of the export.
        files: the pictures.
        sizes: (C, 2) height and width of each.

    Returns:
        The number of boxes that are `TRAINED`, and of others by the reason.

    Raises:
        TrainingError: the file cannot be written.
    """
    chips = files.chips
    counts: Counter[str] = Counter()
    pairs = zip(chips.category_ids[1:], chips.class_names[1:])
    categories = [{"id": identity, "name": name} for identity, name in pairs]

    def images() -> Iterator[str]:
        for place in chips.all_places():
            height, width = sizes[place.number].tolist()
            name = f"{place.file_stem}{files.ending}"
            entry = {"id": place.number + 1, "file_name": name, "width": width, "height": height}
            yield json.dumps(entry)

    def annotations() -> Iterator[str]:
        progress = Progress("annotated chips", len(chips))
        counts.clear()
        for place in chips.all_places():
            boxes = chips.boxes(place, *sizes[place.number].tolist())
            for row in range(len(boxes)):
                counts[TRAINED if boxes.trained[row] else boxes.reason(row)] += 1
                identity = {"id": sum(counts.values()), "image_id": place.number + 1}
                category = chips.category_ids[int(boxes.classes[row]) or 1]
                yield json.dumps({**identity, "category_id": category, **_coco_box(boxes, row)})
            progress.tell(place.number + 1)

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            stream.write('{"images": [')
            write_entries(stream, images())
            stream.write('], "annotations": [')
            write_entries(stream, annotations())
            stream.write(f'], "categories": {json.dumps(categories, ensure_ascii=False)}}}\n')

    atomic_write(folder / "annotations" / f"instances_{SET_NAME}.json", write)
    return counts


def _coco_box(boxes: ChipBoxes, row: int) -> dict[str, object]:
    x1, y1, x2, y2 = boxes.boxes[row].tolist()
    width, height = x2 - x1 + 1, y2 - y1 + 1
    is_trained = bool(boxes.trained[row])
    entry: dict[str, object] = {"bbox": [x1, y1, width, height], "area": width * height}
    entry["iscrowd"] = int(not is_trained)
    return entry if is_trained else {**entry, "why_crowd": boxes.reason(row)}


def write_entries(stream: TextIO, entries: Iterable[str]) -> None:
    """JSON texts, one a line, with commas between them."""
    separator = "\n"
    for entry in entries:
        stream.write(separator + entry)
        separator = ",\n"


def write_yolo(folder: Path, files: PictureFiles, sizes: np.ndarray) -> Counter[str]:
    """`labels/chips/` and `data.yaml`; YOLO has no place for boxes that are not trained.

    Args, returns and raises as `write_coco`.
    """
    chips = files.chips
    counts: Counter[str] = Counter()
    progress = Progress("label files", len(chips))
    for place in chips.all_places():
        height, width = sizes[place.number].tolist()
        boxes = chips.boxes(place, height, width)
        objects = []
        for row in range(len(boxes)):
            counts[TRAINED if boxes.trained[row] else boxes.reason(row)] += 1
            if boxes.trained[row]:
                fractions = _yolo_box(boxes.boxes[row].tolist(), width, height)
                objects.append((int(boxes.classes[row]) - 1, fractions))
        text = "".join(f"{line}\n" for line in label_lines(objects))
        _write_label(label_path(files.path(place)), text)
        progress.tell(place.number + 1)
    names = dict(enumerate(chips.class_names[1:]))
    # YOLO programs ask for both; without a path the folders are those beside the file.
    sets = {"train": f"images/{SET_NAME}", "val": f"images/{SET_NAME}"}
    text = yaml.safe_dump({**sets, "names": names}, sort_keys=False, allow_unicode=True)
    write_whole(folder / YOLO_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return counts


def _write_label(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _yolo_box(box: list[float], width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = box[0], box[1], box[2] + 1, box[3] + 1
    centre = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height]
    return [*centre, (x2 - x1) / width, (y2 - y1) / height]


ANNOTATIONS: dict[str, WriteAnnotations] = {"coco": write_coco, "yolo": write_yolo}

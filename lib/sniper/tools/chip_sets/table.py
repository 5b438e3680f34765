"""`chips.json`: where each exported chip comes from, which brings detections back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.ids import FileId
from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.inference.merge_levels import MergeSettings
from sniper.tools.chip_sets.annotations import write_entries
from sniper.tools.chip_sets.content import ChipSet
from sniper.tools.chip_sets.pictures import PictureFiles

FILE_NAME = "chips.json"
_FORMAT = 1


@dataclass(frozen=True)
class MergePlan:
    """How detections on chips become those of images.

    Attributes:
        valid_ranges: of each level, (low, high) of sqrt(area) in image px; <= 0 is unbounded.
        settings: NMS and cap.
    """

    valid_ranges: tuple[tuple[float, float], ...]
    settings: MergeSettings


@dataclass(frozen=True, eq=False)
class ChipFiles:
    """What `chips.json` says.

    Attributes:
        images: id, width and height of each image.
        categories: id and name of each class, without the background.
        chip_ids: the id that results on chips have for each of them.
        image: (C,) int64, index of the image of each chip.
        rects: (C, 4) float64 x1 y1 x2 y2, image px (of the mirrored image where `flipped`).
        factors: (C,) float64, image px -> chip px.
        levels: (C,) int32.
        flipped: (C,) bool.
        sizes: (C, 2) int64 width and height of the pictures.
        names: their files, below `images/chips`.
        legacy: boxes in chips are those of 2018, see `sniper.targets.gt.boxes_in_chip`.
        plan: how to merge.
    """

    images: tuple[tuple[FileId, int, int], ...]
    categories: tuple[tuple[FileId, str], ...]
    chip_ids: tuple[FileId, ...]
    image: np.ndarray
    rects: np.ndarray
    factors: np.ndarray
    levels: np.ndarray
    flipped: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...]
    legacy: bool
    plan: MergePlan


def write_table(
    folder: Path,
    files: PictureFiles,
    sizes: np.ndarray,
    plan: MergePlan,
    chip_ids: Sequence[FileId],
    head: dict[str, Any],
) -> None:
    """Writes `chips.json`, one line for each chip and image.

    Args:
        folder: of the export.
        files: the pictures.
        sizes: (C, 2) height and width of each.
        plan: how to merge.
        chip_ids: the id that results on chips have for each class, the background's first.
        head: what else there is to say.

    Raises:
        TrainingError: the file cannot be written.
    """
    chips = files.chips
    paths = dict.fromkeys(record.image_path for record in chips.records)
    places = {path: index for index, path in enumerate(paths)}
    columns = zip(chips.category_ids[1:], chip_ids[1:], chips.class_names[1:])
    content = {
        "format": _FORMAT,
        **head,
        "legacy_boxes": chips.settings.legacy_boxes,
        "valid_ranges": plan.valid_ranges,
        "merge": asdict(plan.settings),
        "categories": [{"id": i, "chip_id": of_chips, "name": n} for i, of_chips, n in columns],
    }

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(content, ensure_ascii=False, indent=1)[:-2])
            stream.write(',\n "images": [')
            write_entries(stream, _images(chips, places))
            stream.write('],\n "chips": [')
            write_entries(stream, _chips(files, sizes, places))
            stream.write("]\n}\n")

    atomic_write(folder / FILE_NAME, write)


def _images(chips: ChipSet, places: dict[str, int]) -> Iterator[str]:
    told = -1
    for record, identity in zip(chips.records, chips.image_ids()):
        if places[record.image_path] > told:  # not for the mirrored copy
            told = places[record.image_path]
            size = {"width": record.width, "height": record.height}
            yield json.dumps({"id": identity, "file_name": record.image_path, **size})


def _chips(files: PictureFiles, sizes: np.ndarray, places: dict[str, int]) -> Iterator[str]:
    chips = files.chips
    for place in chips.all_places():
        record, chip = chips.records[place.record], place.chip
        height, width = sizes[place.number].tolist()
        yield json.dumps(
            {
                "id": place.number + 1,
                "file_name": f"{place.file_stem}{files.ending}",
                "image": places[record.image_path],
                "rect": chip.rect,
                "factor": chip.factor,
                "level": chip.level,
                "flipped": record.flipped,
                "kind": chip.kind,
                "width": width,
                "height": height,
                "times": int(chips.times[place.number]),
            }
        )


def read_table(folder: Path) -> ChipFiles:
    """Reads `chips.json` of an export.

    Raises:
        DataError: there is none, or it is broken.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the table of the chips cannot be read",
            where=path,
            got=error,
            fix="name a folder of `sniper export-chips`; run it again if it was interrupted",
        ) from error
    try:
        table = _parse(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "the table of the chips is broken", where=path, got=repr(error), fix="export again"
        ) from error
    problem = _problem(table)
    if problem:
        raise DataError("the table of the chips is broken", where=path, got=problem)
    return table


def _parse(content: dict[str, Any]) -> ChipFiles:
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']!r}, not {_FORMAT}")
    chips = content["chips"]

    def column(key: str, dtype: type, *shape: int) -> np.ndarray:
        return np.array([chip[key] for chip in chips], dtype).reshape(len(chips), *shape)

    if [chip["id"] for chip in chips] != list(range(1, len(chips) + 1)):
        raise ValueError("ids of chips are not 1, 2, 3 ...")
    return ChipFiles(
        images=tuple((one["id"], one["width"], one["height"]) for one in content["images"]),
        categories=tuple((one["id"], one["name"]) for one in content["categories"]),
        chip_ids=tuple(one["chip_id"] for one in content["categories"]),
        image=column("image", np.int64),
        rects=column("rect", np.float64, 4),
        factors=column("factor", np.float64),
        levels=column("level", np.int32),
        flipped=column("flipped", np.bool_),
        sizes=np.stack([column("width", np.int64), column("height", np.int64)], axis=1),
        names=tuple(chip["file_name"] for chip in chips),
        legacy=bool(content["legacy_boxes"]),
        plan=MergePlan(_ranges(content["valid_ranges"]), MergeSettings(**content["merge"])),
    )


def _ranges(pairs: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(low), float(high)) for low, high in pairs)


def _problem(table: ChipFiles) -> str:
    if not len(table.image):
        return ""
    if table.image.min() < 0 or table.image.max() >= len(table.images):
        return "a chip of an image that is not there"
    if table.levels.min() < 0 or table.levels.max() >= len(table.plan.valid_ranges):
        return "a chip of a level without valid range"
    if not (np.isfinite(table.rects).all() and (table.factors > 0).all()):
        return "a rectangle or factor that is none"
    return ""

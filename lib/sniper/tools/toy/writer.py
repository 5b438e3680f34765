"""Writes a generated data set in the COCO layout, and recognises one that is already there.

The folder carries a stamp file with the settings and, once everything is written, a digest of all
files. A folder without our stamp is never written to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sniper.errors import DataError
from sniper.tools.toy import openimages
from sniper.tools.toy.drop import drop_any, drop_far, to_labelled_px
from sniper.tools.toy.picture import Picture, image_id, write_picture
from sniper.tools.toy.processes import run_jobs, told
from sniper.tools.toy.reuse import check_source, linked_pictures
from sniper.tools.toy.settings import EVERY_SPLIT, FEW_SHOT, TRAIN, Split, ToySettings
from sniper.tools.toy.shapes import ToyClass
from sniper.tools.toy.stamp import (
    COMPLETE,
    OURS,
    digest,
    folder_state,
    image_files,
    set_files,
    write_stamp,
    write_text,
)


def make_toy_data(
    out: str | Path,
    settings: ToySettings,
    *,
    workers: int | None = None,
    force: bool = False,
    images_from: Path | None = None,
    progress: Callable[[str], None] = print,
) -> bool:
    """Makes the data set, unless the folder holds exactly this one already.

    Args:
        out: folder; made when missing. A data set of these settings that is incomplete or was
            changed is written again.
        settings: what to make.
        workers: processes; all usable cores when None. The result does not depend on it.
        force: replace a generated data set of other settings.
        images_from: a generated set whose images are linked instead of made anew; its settings
            differ in annotations alone. The result is the same without it.
        progress: receives progress lines, one every 5 s at most.

    Returns:
        True when files were written, False when the folder's data set is reused.

    Raises:
        ConfigError: so many objects cannot lose their annotation, or `images_from` is `out`.
        DataError: the folder was not made by this tool, has other settings, or is not writable;
            the images of `images_from` are others or cannot be linked.
        TrainingError: a worker process died, or a json file could not be written.
    """
    out = Path(out)
    state = folder_state(out, settings.as_dict(), set_files(settings), force, progress)
    if state == COMPLETE:
        return False
    if images_from is not None:
        check_source(images_from, out, settings)
    _prepare(out, settings, replaces=state == OURS)
    digests = _write_splits(out, settings, workers, images_from, progress)
    write_stamp(out, settings.as_dict(), digest(digests))
    return True


def _prepare(out: Path, settings: ToySettings, replaces: bool) -> None:
    """Marks the folder as unfinished before anything else changes, and clears what was ours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_stamp(out, settings.as_dict(), None)
        if replaces:
            for split in EVERY_SPLIT:
                _clear(out, split)
            for name in (openimages.CLASS_FILE, openimages.HIERARCHY_FILE):
                (out / "annotations" / name).unlink(missing_ok=True)
        for split in settings.splits:
            folders = {(out / file).parent for file in image_files(settings, [split])}
            for folder in folders or {out / "images" / split.folder}:
                folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("the folder cannot be written", where=out, got=error) from error


def _clear(out: Path, split: Split) -> None:
    """Takes our files of a split away, and the folders of classes that are empty then."""
    if split.annotation_file:
        (out / "annotations" / split.annotation_file).unlink(missing_ok=True)
    for name in openimages.table_names(split.name).values():
        (out / "annotations" / name).unlink(missing_ok=True)
    ours = re.compile(rf"{re.escape(split.folder)}_\d{{6}}\.jpg(\.\d+\.tmp)?")
    pattern = f"{split.folder}/*/*" if split == FEW_SHOT else f"images/{split.folder}/*"
    for file in out.glob(pattern):
        if ours.fullmatch(file.name):
            file.unlink()
            if split == FEW_SHOT and not any(file.parent.iterdir()):
                file.parent.rmdir()


def _write_splits(
    out: Path,
    settings: ToySettings,
    workers: int | None,
    images_from: Path | None,
    progress: Callable[[str], None],
) -> dict[str, str]:
    """Writes images and annotations; gives the SHA-256 of each file."""
    splits = settings.splits
    jobs = [(split, index) for split in splits for index in range(settings.count(split))]
    if images_from is None:
        pictures = run_jobs(partial(write_picture, str(out), settings), jobs, workers)
    else:
        pictures = linked_pictures(images_from, out, settings)
    by_split: dict[str, list[Picture]] = {split.name: [] for split in splits}
    digests = {}
    for (split, _), picture in zip(jobs, told(pictures, len(jobs), progress)):
        by_split[split.name].append(picture)
        digests[picture.file] = picture.sha256
    by_split[TRAIN.name] = _with_labels_dropped(by_split[TRAIN.name], settings, progress)
    texts = openimages.common_tables(settings.kinds(TRAIN)) if settings.openimages else {}
    for split in splits:
        of_split, kinds = by_split[split.name], settings.kinds(split)
        if of_split and split.annotation_file:
            texts[split.annotation_file] = _annotations(split, of_split, kinds)
        if of_split and split.annotated and settings.openimages:
            images = [_toy_image(split, *numbered) for numbered in enumerate(of_split)]
            texts |= openimages.split_tables(split.name, images, kinds, settings.seed)
    for file, text in texts.items():
        name = f"annotations/{file}"
        digests[name] = write_text(out / name, text)
    return digests


def _with_labels_dropped(
    pictures: list[Picture], settings: ToySettings, progress: Callable[[str], None]
) -> list[Picture]:
    """Some of the objects lose their annotation; they stay in the pictures."""
    share = settings.drop_labels or settings.drop_far
    if not share:
        return pictures
    boxes = [picture.boxes for picture in pictures]
    drop = drop_far if settings.drop_far else drop_any
    lost = drop(boxes, share, settings.drop_seed)
    rows = [frozenset(np.flatnonzero(gone).tolist()) for gone in lost]
    far = to_labelled_px(boxes, lost)
    text = f"{len(far)} of {sum(map(len, boxes))} objects of {TRAIN.name} have no annotation"
    if len(far):
        text += (
            f"; the nearest object with one is {far.min():.0f} px away or more, "
            f"{np.median(far):.0f} px in the median"
        )
    progress(text)
    return [replace(picture, lost=gone) for picture, gone in zip(pictures, rows)]


def _toy_image(split: Split, index: int, picture: Picture) -> openimages.ToyImage:
    return openimages.ToyImage(
        image_id(split, index),
        Path(picture.file).name,
        picture.width,
        picture.height,
        [item.box for item in picture.objects],
        [item.kind for item in picture.objects],
        picture.lost,
    )


def _annotations(split: Split, pictures: list[Picture], kinds: Sequence[ToyClass]) -> str:
    """The text of a COCO annotation file; image ids have gaps, as those of real data sets."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index, picture in enumerate(pictures):
        images.append(
            {
                "id": image_id(split, index),
                "file_name": Path(picture.file).name,
                "width": picture.width,
                "height": picture.height,
            }
        )
        for item in picture.labelled:
            annotations.append(
                {
                    "id": 1_000_000 * (split.number + 1) + len(annotations) + 1,
                    "image_id": image_id(split, index),
                    "category_id": item.kind.category_id,
                    "bbox": [float(v) for v in item.box],
                    "area": float(item.area),
                    "iscrowd": 0,
                    "segmentation": item.polygons,
                }
            )
    info: dict[str, object] = {"description": "synthetic shapes", "split": split.name}
    lost = sum(len(picture.lost) for picture in pictures)
    if lost:
        info["objects_without_annotation"] = lost
    content: dict[str, object] = {
        "info": info,
        "licenses": [],
        "images": images,
        "categories": [
            {"id": kind.category_id, "name": kind.name, "supercategory": kind.group}
            for kind in kinds
        ],
    }
    if split.annotated:
        content["annotations"] = annotations
    return json.dumps(content, separators=(",", ":")) + "\n"

"""Writes a generated data set in the COCO layout, and recognises one that is already there.

The folder carries a stamp file with the settings and, once everything is written, a digest of all
files. A folder without our stamp is never written to.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from sniper.errors import DataError, TrainingError
from sniper.files import atomic_write_text
from sniper.process import usable_cores
from sniper.tools.toy import openimages
from sniper.tools.toy.scene import render_scene
from sniper.tools.toy.settings import EVERY_SPLIT, FEW_SHOT, TRAIN, Split, ToySettings
from sniper.tools.toy.shapes import ToyClass

STAMP_FILE = "toy_data.json"
_MAKER = "sniper make-toy-data"
_CHUNK = 8  # images per task of the process pool
_PROGRESS_PERIOD_S = 5.0


@dataclass(frozen=True)
class _Picture:
    """One written image: what the annotation file says about it, and the digest of its file."""

    file: str
    width: int
    height: int
    objects: tuple
    sha256: str


def make_toy_data(
    out: str | Path,
    settings: ToySettings,
    *,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[str], None] = print,
) -> bool:
    """Makes the data set, unless the folder holds exactly this one already.

    Args:
        out: folder; made when missing. A data set of these settings that is incomplete or was
            changed is written again.
        settings: what to make.
        workers: processes; all usable cores when None. The result does not depend on it.
        force: replace a generated data set of other settings.
        progress: receives progress lines, one every 5 s at most.

    Returns:
        True when files were written, False when the folder's data set is reused.

    Raises:
        DataError: the folder was not made by this tool, has other settings, or is not writable.
        TrainingError: a worker process died, or a json file could not be written.
    """
    out = Path(out)
    stamp = _read_stamp(out)
    if stamp is not None and stamp["settings"] != settings.as_dict() and not force:
        raise DataError(
            "this folder holds a generated data set with other settings",
            where=out,
            got=_difference(stamp["settings"], settings.as_dict()),
            fix="name another folder, or use --force to replace the data set",
        )
    if stamp is not None and stamp["settings"] == settings.as_dict():
        if stamp["sha256"] == _digest(_files_on_disk(out, settings)):
            return False
        progress(f"{out}: the data set is incomplete or was changed; writing it again")
    _prepare(out, settings, replaces=stamp is not None)
    digests = _write_splits(out, settings, workers, progress)
    _write_stamp(out, settings, _digest(digests))
    return True


def _read_stamp(out: Path) -> dict | None:
    """The folder's stamp; None for a folder that is missing or empty.

    Raises:
        DataError: the folder holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        stamp = json.loads((out / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = None
    if not isinstance(stamp, dict) or stamp.get("made_by") != _MAKER or "settings" not in stamp:
        raise DataError(
            "this path holds files that `sniper make-toy-data` did not make; nothing was changed",
            where=out,
            expected=f"a missing or empty folder, or one with our {STAMP_FILE}",
            fix="name another folder",
        )
    return {"sha256": None, **stamp}


def _difference(there: object, wanted: dict) -> str:
    there = there if isinstance(there, dict) else {}
    keys = [k for k in sorted({*there, *wanted}) if there.get(k) != wanted.get(k)]
    return "; ".join(f"{k}: {there.get(k)} there, {wanted.get(k)} wanted" for k in keys)


def _prepare(out: Path, settings: ToySettings, replaces: bool) -> None:
    """Marks the folder as unfinished before anything else changes, and clears what was ours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_stamp(out, settings, None)
        if replaces:
            for split in EVERY_SPLIT:
                _clear(out, split)
            for name in (openimages.CLASS_FILE, openimages.HIERARCHY_FILE):
                (out / "annotations" / name).unlink(missing_ok=True)
        for split in settings.splits:
            folders = {(out / file).parent for file in _image_files(settings, [split])}
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


def _write_stamp(out: Path, settings: ToySettings, digest: str | None) -> None:
    stamp = {"made_by": _MAKER, "settings": settings.as_dict(), "sha256": digest}
    atomic_write_text(out / STAMP_FILE, json.dumps(stamp, indent=1) + "\n")


def _digest(sha256_by_file: dict[str, str]) -> str:
    lines = "".join(f"{name} {sha256_by_file[name]}\n" for name in sorted(sha256_by_file))
    return hashlib.sha256(lines.encode()).hexdigest()


def _files_on_disk(out: Path, settings: ToySettings) -> dict[str, str]:
    """SHA-256 of every file that the data set should have, those that are there."""
    names = [
        f"annotations/{split.annotation_file}"
        for split in settings.splits
        if settings.count(split) and split.annotation_file
    ]
    names += _table_files(settings)
    names += _image_files(settings, settings.splits)
    there = [name for name in names if (out / name).is_file()]
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in there}


def _image_files(settings: ToySettings, splits: Sequence[Split]) -> list[str]:
    return [
        settings.file(split, index) for split in splits for index in range(settings.count(split))
    ]


def _table_files(settings: ToySettings) -> list[str]:
    """The tables of Open Images, if there are to be some."""
    if not settings.openimages:
        return []
    tables = [openimages.CLASS_FILE, openimages.HIERARCHY_FILE]
    for split in settings.splits:
        if settings.count(split) and split.annotated:
            tables += openimages.table_names(split.name).values()
    return [f"annotations/{name}" for name in tables]


def _write_splits(
    out: Path, settings: ToySettings, workers: int | None, progress: Callable[[str], None]
) -> dict[str, str]:
    """Writes images and annotations; gives the SHA-256 of each file."""
    splits = settings.splits
    jobs = [(split, index) for split in splits for index in range(settings.count(split))]
    work = partial(_write_picture, str(out), settings)
    by_split: dict[str, list[_Picture]] = {split.name: [] for split in splits}
    digests = {}
    last = time.monotonic()
    for done, ((split, _), picture) in enumerate(zip(jobs, _run(work, jobs, workers)), start=1):
        by_split[split.name].append(picture)
        digests[picture.file] = picture.sha256
        if time.monotonic() - last >= _PROGRESS_PERIOD_S:
            progress(f"{done} of {len(jobs)} images")
            last = time.monotonic()
    annotated = {**by_split, TRAIN.name: _with_labels_dropped(by_split[TRAIN.name], settings)}
    texts = openimages.common_tables(settings.kinds(TRAIN)) if settings.openimages else {}
    for split in splits:
        pictures, kinds = annotated[split.name], settings.kinds(split)
        if pictures and split.annotation_file:
            texts[split.annotation_file] = _annotations(split, pictures, kinds)
        if pictures and split.annotated and settings.openimages:
            whole = by_split[split.name]
            images = [
                _toy_image(split, index, picture, whole[index])
                for index, picture in enumerate(pictures)
            ]
            texts |= openimages.split_tables(split.name, images, kinds, settings.seed)
    for file, text in texts.items():
        name = f"annotations/{file}"
        atomic_write_text(out / name, text)
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def _with_labels_dropped(pictures: list[_Picture], settings: ToySettings) -> list[_Picture]:
    """Without some of the objects, which stay in the pictures."""
    if not settings.drop_labels:
        return pictures
    rng = np.random.default_rng(settings.drop_seed)
    changed = []
    for picture in pictures:
        kept = rng.random(len(picture.objects)) >= settings.drop_labels
        if len(kept) and not kept.any():
            kept[rng.integers(len(kept))] = True
        objects = tuple(item for item, stays in zip(picture.objects, kept) if stays)
        changed.append(replace(picture, objects=objects))
    return changed


def _toy_image(split: Split, index: int, picture: _Picture, whole: _Picture) -> openimages.ToyImage:
    return openimages.ToyImage(
        _image_id(split, index),
        Path(picture.file).name,
        picture.width,
        picture.height,
        [item.box for item in picture.objects],
        [item.kind for item in picture.objects],
        frozenset(item.kind.name for item in whole.objects),
    )


def _image_id(split: Split, index: int) -> int:
    return 100_000 * (split.number + 1) + 3 * index + 1


def _run(
    work: Callable[[tuple], _Picture], jobs: list[tuple], workers: int | None
) -> Iterator[_Picture]:
    """Maps `work` over the jobs, in order, in spawned processes or here when there is one."""
    wanted = usable_cores() if workers is None else workers
    wanted = max(1, min(wanted, len(jobs) // _CHUNK))
    if wanted == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(wanted, context, _one_thread) as pool:
            yield from pool.map(work, jobs, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a worker process of make-toy-data died",
            got=error,
            fix="use fewer --workers when memory is short; calling again starts over",
        ) from error


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _write_picture(out: str, settings: ToySettings, job: tuple[Split, int]) -> _Picture:
    """Renders and writes one image; everything in it comes from (seed, split, index)."""
    split, index = job
    rng = np.random.default_rng([settings.seed, split.number, index])
    scene, kinds = settings.content(split, index)
    rendered = render_scene(rng, scene, kinds=kinds)
    while split == FEW_SHOT and not rendered.objects:  # no place was found for it
        rendered = render_scene(rng, scene, kinds=kinds)
    encoded = encode_jpeg(rendered.image, int(rng.integers(72, 96)))
    file = settings.file(split, index)
    target = Path(out, file)
    # A rename, so that another process never sees half of an image.
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(encoded)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError("an image cannot be written", where=target, got=error) from error
    height, width = rendered.image.shape[:2]
    objects = rendered.objects if split.annotated else ()
    return _Picture(file, width, height, objects, hashlib.sha256(encoded).hexdigest())


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of a uint8 (H, W, 3) BGR image.

    Raises:
        DataError: OpenCV could not encode it.
    """
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise DataError("OpenCV could not encode an image as JPEG", got=image.shape)
    return data.tobytes()


def _annotations(split: Split, pictures: list[_Picture], kinds: Sequence[ToyClass]) -> str:
    """The text of a COCO annotation file; image ids have gaps, as those of real data sets."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index, picture in enumerate(pictures):
        image_id = _image_id(split, index)
        images.append(
            {
                "id": image_id,
                "file_name": Path(picture.file).name,
                "width": picture.width,
                "height": picture.height,
            }
        )
        for item in picture.objects:
            annotations.append(
                {
                    "id": 1_000_000 * (split.number + 1) + len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": item.kind.category_id,
                    "bbox": [float(v) for v in item.box],
                    "area": float(item.area),
                    "iscrowd": 0,
                    "segmentation": item.polygons,
                }
            )
    content: dict[str, object] = {
        "info": {"description": "synthetic shapes", "split": split.name},
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

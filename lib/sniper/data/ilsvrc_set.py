"""The validation set of ILSVRC DET for evaluation: a development kit and annotation files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sniper.data.annotation_files import (
    AnnotationFiles,
    archives_in,
    covered_lists,
    find_annotation_files,
    missing_files,
)
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ilsvrc import DevKit, IlsvrcTruth, find_kit, read_kit
from sniper.data.imagenet_annotation import ImagenetTable, read_imagenet_table
from sniper.data.problems import UNKNOWN_NAME, Problem, stop_at_errors
from sniper.data.record import image_record
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# The numbers of all validation images.
VAL = "val"
_SHOWN = 5


def read_ilsvrc_truth(path: Path, image_set: str | None = None) -> Dataset:
    """The annotations of a validation set: images are neither looked up nor opened.

    Args:
        path: the development kit (`data/det_lists/val.txt`, `data/meta_det.mat`), or the folder
            that has it. The annotation files are in a folder or an archive in or beside it.
        image_set: a list of `data/det_lists`. None: `val`, or the longest list all of whose images
            have annotations. Numbers of images are those of `val` where it has them all.

    Raises:
        ConfigError: there is no such list, or no list fits the annotations.
        DataError: the kit or annotations are missing or broken.
    """
    root = find_kit(path)
    if root is None:
        raise DataError(
            "there is no development kit of ILSVRC",
            where=path,
            expected="a folder with data/det_lists/val.txt and data/meta_det.mat",
        )
    kit = read_kit(root)
    lists = {name: kit.read_list(name) for name in _names_of_lists(kit, image_set)}
    files = find_annotation_files(
        _sources(root, path), {key for numbers in lists.values() for key in numbers}
    )
    name = _chosen(kit, image_set, lists, files)
    numbers = lists[name]
    if VAL in lists and numbers.keys() <= lists[VAL].keys():
        numbers = {key: lists[VAL][key] for key in numbers}
    listed = np.array(sorted(lists.get(VAL, numbers).values()), np.int64)
    if name != VAL:
        logger.info("evaluated on the %d images of the list %s", len(numbers), name)
    keys = sorted(numbers, key=numbers.__getitem__)
    table = read_imagenet_table((files.read(key) for key in keys), len(keys))
    return _dataset(kit, name, keys, [numbers[key] for key in keys], table, listed)


def _names_of_lists(kit: DevKit, image_set: str | None) -> list[str]:
    names = kit.list_names()
    if image_set is None or image_set in names:
        return names
    if not kit.list_path(image_set).is_file():
        raise ConfigError(
            "the development kit has no such list",
            where=kit.list_path(image_set),
            got=f"--image_set {image_set}",
            expected=", ".join(names),
        )
    return [*names, image_set]


def _sources(root: Path, path: Path) -> list[Path]:
    """Where annotation files may be: the folder that was named, and what stands beside the kit."""
    beside = [p for p in sorted(root.resolve().parent.glob("*bbox*")) if p.is_dir()]
    inside = [path] if path == root else [root, path]
    return [*inside, *archives_in(root), *([] if path != root else beside)]


def _chosen(
    kit: DevKit, image_set: str | None, lists: dict[str, dict[str, int]], files: AnnotationFiles
) -> str:
    """The list that is evaluated.

    An image without file is no image without objects: all validation images have one.
    """
    if image_set is not None:
        missing = missing_files(list(lists[image_set]), files)
        if missing:
            raise _incomplete(kit, image_set, missing, len(lists[image_set]))
        return image_set
    covered = covered_lists({name: list(numbers) for name, numbers in lists.items()}, files)
    if covered:
        return covered[0]
    name = VAL if VAL in lists else next(iter(lists), VAL)
    numbers = lists.get(name, {})
    raise _incomplete(kit, name, missing_files(list(numbers), files), len(numbers))


def _incomplete(kit: DevKit, name: str, missing: Sequence[str], total: int) -> DataError:
    shown = ", ".join(f"{key}.xml" for key in missing[:_SHOWN])
    return DataError(
        f"{len(missing)} of {total} images have no annotation file",
        where=kit.list_path(name),
        got=f"no {shown}{', ...' if len(missing) > _SHOWN else ''}",
        expected=f"ILSVRC2013_DET_val_bbox (or its archive) in or beside {kit.root}",
        fix="put the annotations there, or put a list of the images that have some into "
        "data/det_lists and name it with --image_set",
    )


def _dataset(
    kit: DevKit,
    name: str,
    keys: Sequence[str],
    numbers: Sequence[int],
    table: ImagenetTable,
    listed: np.ndarray,
) -> Dataset:
    sizes = table.least_sizes.tolist()  # the metrics ask for none
    class_names = (BACKGROUND, *(c.name for c in kit.classes))
    truth = det_truth(kit, table, np.array(numbers, np.int64), listed, np.arange(len(class_names)))
    return Dataset(
        name=f"ILSVRC_{name}",
        image_set=name,
        class_names=class_names,
        category_ids=(0, *(c.number for c in kit.classes)),
        records=tuple(
            image_record(f"{key}.JPEG", number, *size)
            for key, number, size in zip(keys, numbers, sizes)
        ),
        annotation_path=str(kit.list_path(name)),
        has_annotations=True,
        truth=truth,
        protocol="ilsvrc",
    )


def det_truth(
    kit: DevKit,
    table: ImagenetTable,
    image_numbers: np.ndarray,
    listed: np.ndarray,
    evaluated_as: np.ndarray,
    first_px: int = 0,
) -> IlsvrcTruth:
    """What a set is evaluated with: the 200 classes of the challenge.

    Args:
        kit: the development kit.
        table: annotations of the images.
        image_numbers: (n,) of the images, rising.
        listed: see `IlsvrcTruth`.
        evaluated_as: the same.
        first_px: the same.
    """
    places = {c.wnid: place for place, c in enumerate(kit.classes, start=1)}
    classes = table.class_of_box(places)
    foreign = np.flatnonzero(classes == 0)
    if len(foreign):
        texts = (f"{table.names[table.name_of[i]]}" for i in foreign.tolist())
        stop_at_errors(Problem(UNKNOWN_NAME, str(kit.root), len(foreign), texts))
    counted = (classes > 0) & ~table.inverted  # no detection overlaps the others
    blacklist = [(n, places[wnid]) for n, wnid in kit.blacklist() if wnid in places]
    return IlsvrcTruth(
        class_names=tuple(c.name for c in kit.classes),
        class_numbers=np.array([c.number for c in kit.classes], np.int64),
        evaluated_as=evaluated_as.astype(np.int32),
        listed=listed,
        image_ids=image_numbers[table.image_of_box][counted],
        classes=classes[counted],
        boxes=table.boxes[counted].astype(np.float64),
        blacklist=np.array(blacklist, np.int64).reshape(-1, 2),
        first_px=first_px,
    )

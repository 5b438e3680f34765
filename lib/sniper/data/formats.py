"""Data formats by the name that `dataset.dataset` gives them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sniper.data.coco import load_coco
from sniper.data.dataset import Dataset
from sniper.data.folders import load_folder
from sniper.data.imagenet import load_imagenet
from sniper.data.openimages import load_openimages
from sniper.data.orientation import AUTO
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.data.record import Record
from sniper.data.registry import Registry
from sniper.data.voc import load_voc
from sniper.data.wider import load_wider
from sniper.data.yolo import load_yolo
from sniper.errors import ConfigError


class FormatReader(Protocol):
    """How a data format is read: the one reader of training, checks and evaluation."""

    def __call__(
        self,
        dataset_path: str | Path,
        image_set: str,
        *,
        with_masks: bool = False,
        cache_dir: str | Path | None = None,
        on_problem: OnProblem = stop_at_errors,
    ) -> Dataset:
        """Reads one image set; see `load_dataset`.

        A reader that can read boxes by the rules of 2018 takes `legacy_boxes: bool = False` too,
        one whose sets may lie elsewhere `annotation_file` and `image_folder` (texts, or None), and
        one that takes sizes from image files `exif` (see `size_of_boxes` of
        `sniper.data.image_header`).

        A reader reports what it can do without, and raises a DataError where it cannot go on; one
        that always raises is right too, but `sniper check-data` then shows one problem at a time.
        """
        ...


def new_registry() -> Registry[FormatReader]:
    """The package's own formats."""
    return Registry(
        "kind of data set",
        "dataset.dataset",
        "sniper.datasets",
        {
            "coco": load_coco,
            "imagenet": load_imagenet,
            "openimages": load_openimages,
            "pascalvoc": load_voc,
            "voc": load_voc,
            "wider": load_wider,
            "yolo": load_yolo,
            "folder": load_folder,
        },
        is_part=callable,
        kind="a function that reads a set: see sniper.data.FormatReader",
    )


_FORMATS = new_registry()


def register_format(name: str, reader: FormatReader) -> None:
    """Makes a data format known as `dataset.dataset: <name>`.

    Installed packages can do without the call: an entry point of the group `sniper.datasets` whose
    name is the format's and whose object is the reader.

    Args:
        name: case does not matter.
        reader: reads one image set.

    Raises:
        ConfigError: another format has that name.
    """
    _FORMATS.register(name, reader)


def find_format(name: str) -> FormatReader:
    """The reader of a format.

    Raises:
        ConfigError: there is no such kind; the message names a similar one.
    """
    return _FORMATS.get(name)


def format_names() -> list[str]:
    """All known formats."""
    return _FORMATS.names()


def load_dataset(
    kind: str,
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    legacy_boxes: bool = False,
    annotation_file: str | None = None,
    image_folder: str | None = None,
    exif: str = AUTO,
    cache_dir: str | Path | None = None,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """Reads one image set of the given kind.

    Args:
        kind: name of a format; case does not matter.
        dataset_path: root folder of the data set.
        image_set: one set's name (sets joined with `+` are read one by one).
        with_masks: also read the polygons.
        legacy_boxes: boxes by the rules of 2018 (`TRAIN.LEGACY_BOXES`), for formats that 2018 had.
        annotation_file: the annotations, where they are not in the usual place (COCO, ImageNet).
        image_folder: the folder of the images, the same.
        exif: what EXIF orientation does (`dataset.EXIF`).
        cache_dir: where parsed annotations are kept; None for no cache.
        on_problem: gets every problem; what it does not raise is left out of the set. By default
            errors are raised and warnings counted in the log.

    Raises:
        ConfigError: there is no such kind, or its sets have one place only.
        DataError: there is nothing to read; by default also for everything missing or broken.
    """
    reader = find_format(kind)
    options: dict[str, Any] = {"with_masks": with_masks, "cache_dir": cache_dir}
    if _takes(reader, "legacy_boxes"):
        options["legacy_boxes"] = legacy_boxes
    if _takes(reader, "exif"):
        options["exif"] = exif
    for name, value in (("annotation_file", annotation_file), ("image_folder", image_folder)):
        if value and not _takes(reader, name):
            raise ConfigError(
                f"sets of the format {kind!r} have their files in one place",
                where=f"dataset.{name}",
                got=value,
                fix=f"leave dataset.{name} empty, and name the root folder with "
                "dataset.dataset_path",
            )
        if value:
            options[name] = value
    dataset = reader(dataset_path, image_set, on_problem=on_problem, **options)
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"the reader of the format {kind!r} gives no data set",
            got=f"a {type(dataset).__name__}",
            expected="a sniper.data.Dataset",
        )
    strange = next((item for item in dataset.records if not isinstance(item, Record)), None)
    if strange is not None:
        raise ConfigError(
            f"the reader of the format {kind!r} gives records of another type",
            got=f"a {type(strange).__name__}",
            expected="sniper.data.Record, for example of sniper.data.record.image_record",
        )
    if exif == AUTO:
        return dataset
    return replace(dataset, records=tuple(replace(r, exif=exif) for r in dataset.records))


def _takes(reader: FormatReader, option: str) -> bool:
    """Whether a reader has an option that not all formats need."""
    try:
        return option in inspect.signature(reader).parameters
    except (TypeError, ValueError):  # a function of compiled code does not say what it takes
        return False

"""Pictures of a generated set that is there already, for a set with other annotations."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sniper.errors import ConfigError, DataError
from sniper.tools.toy.picture import Picture, image_id
from sniper.tools.toy.scene import SceneObject
from sniper.tools.toy.settings import Split, ToySettings
from sniper.tools.toy.stamp import difference, digest, files_on_disk, read_stamp, set_files


def check_source(source: Path, out: Path, settings: ToySettings) -> None:
    """Whether a set's pictures are those that `settings` would give, and all there.

    Args:
        source: the set that is there; it may lack the tables of Open Images, or have them.
        out: the set to make.
        settings: of `out`.

    Raises:
        ConfigError: both are the same folder.
        DataError: it is no generated set, its settings differ in more than annotations, it has
            lost annotations itself, or files are missing or were changed.
    """
    if source.resolve() == out.resolve():
        raise ConfigError(
            "a set cannot take the images of itself",
            got=f"--images-from {source}",
            fix="name another folder for the new set",
        )
    stamp = read_stamp(source)
    if stamp is None:
        raise DataError(
            "there is no data set to take images from",
            where=source,
            fix="make it first: sniper make-toy-data FOLDER, with the same settings",
        )
    there = stamp["settings"]
    whole = replace(
        settings,
        openimages=isinstance(there, dict) and bool(there.get("openimages")),
        drop_labels=0.0,
        drop_far=0.0,
    )
    if there != whole.as_dict():
        raise DataError(
            "the images of this data set are others, or it has lost annotations itself",
            where=source,
            got=difference(there, whole.as_dict()),
            expected="the same settings but for --openimages, and nothing dropped",
            fix="name a set with all annotations and these settings",
        )
    if stamp["sha256"] != digest(files_on_disk(source, set_files(whole))):
        raise DataError(
            "this data set is incomplete or was changed",
            where=source,
            fix="make it again: the command that made it writes what is missing",
        )


def linked_pictures(source: Path, out: Path, settings: ToySettings) -> Iterator[Picture]:
    """Links the images of a checked set into another; what they show comes from its annotations.

    Hard links: both sets are whole, take up the images' room once, and either may be deleted.

    Args:
        source: the set that is there.
        out: the folder of the other, with folders for the images.
        settings: of `out`.

    Raises:
        DataError: a file cannot be read or linked.
    """
    for split in settings.splits:
        count = settings.count(split)
        content = _content(source, split) if count and split.annotation_file else {}
        kinds = {kind.category_id: kind for kind in settings.kinds(split)}
        objects = defaultdict(list)
        for entry in content.get("annotations", ()):
            x, y, width, height = (int(value) for value in entry["bbox"])
            kind, box = kinds[entry["category_id"]], (x, y, width, height)
            item = SceneObject(kind, box, int(entry["area"]), entry["segmentation"])
            objects[entry["image_id"]].append(item)
        images = {entry["id"]: entry for entry in content.get("images", ())}
        for index in range(count):
            file, identity = settings.file(split, index), image_id(split, index)
            # Splits without annotation file say nothing of sizes.
            image = images.get(identity, {"width": 0, "height": 0})
            yield Picture(
                *(file, image["width"], image["height"], tuple(objects[identity])),
                _link(source / file, out / file),
            )


def _content(source: Path, split: Split) -> dict:
    path = source / "annotations" / split.annotation_file
    try:
        content: dict = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError("the annotations cannot be read", where=path, got=error) from error
    return content


def _link(source: Path, target: Path) -> str:
    """Makes the link; gives the SHA-256 of the file."""
    try:
        target.unlink(missing_ok=True)
        os.link(source, target)
        return hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            "an image of the other set cannot be linked",
            where=target,
            got=error,
            expected=f"a hard link to {source}: both on one disk, which knows such links",
            fix="name a folder beside the other set, or leave --images-from out",
        ) from error

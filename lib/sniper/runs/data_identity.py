"""Which data a run was trained on: image by image, so that a change can be named later.

Of every training image: its name below the data set's folder, its size in bytes, the SHA-256 of
its content (of small sets; reading a large one would take minutes), digests of its annotations
and of its proposals as the run has them in memory: so every format is compared in the same way.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data import Record
from sniper.data.cache import file_sha256
from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.runs.environment import HASH_CHARACTERS, combined_sha256

# The content of so many bytes of images is hashed: about half a second.
HASHED_BYTES = 256 << 20
_UNKNOWN = "-"
_SHOWN = 5


@dataclass(frozen=True)
class ImageIdentity:
    """What is known of a training image.

    Attributes:
        name: its path below the data set's folder, or the whole path where it lies elsewhere.
        size: bytes of the file; -1: it could not be looked at.
        content: of its SHA-256; `-`: not read.
        truth: digest of size, orientation, boxes, classes, crowd regions and polygons.
        proposals: digest of the proposals; `-`: none.
    """

    name: str
    size: int
    content: str
    truth: str
    proposals: str

    def line(self) -> str:
        """The fields in a line of text."""
        return "\t".join((self.name, str(self.size), self.content, self.truth, self.proposals))


def identify_images(
    records: Sequence[Record], root: Path, hashed_bytes: int = HASHED_BYTES
) -> list[ImageIdentity]:
    """The identity of all images of a training set, in its order, mirrored copies left out.

    Args:
        records: of the set.
        root: folder of the data set, which may move.
        hashed_bytes: images are read until so many bytes are.
    """
    identities = []
    seen: set[str] = set()
    for record in records:
        if record.flipped or record.image_path in seen:
            continue
        seen.add(record.image_path)
        size = _size(record.image_path)
        is_read = 0 <= size <= hashed_bytes
        hashed_bytes -= size if is_read else 0
        content = file_sha256(record.image_path)[:HASH_CHARACTERS] if is_read else _UNKNOWN
        name = _name(record.image_path, root)
        identities.append(
            ImageIdentity(name, size, content, _truth(record), _proposals(record)),
        )
    return identities


def identity_of(images: Sequence[ImageIdentity]) -> str:
    """One digest of all images in order."""
    return combined_sha256(image.line() for image in images)


def write_images(path: Path, images: Sequence[ImageIdentity]) -> None:
    """Writes what `read_images` reads.

    Raises:
        TrainingError: the file could not be written.
    """
    text = "".join(f"{image.line()}\n" for image in images)
    content = gzip.compress(text.encode("utf-8", "surrogateescape"), mtime=0)
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def read_images(path: Path) -> list[ImageIdentity]:
    """The identities that a run has left.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        content = path.read_bytes()
        if not content:
            raise ValueError("the file is empty")
        text = gzip.decompress(content).decode("utf-8", "surrogateescape")
        rows = [line.split("\t") for line in text.split("\n")[:-1]]
        return [ImageIdentity(row[0], int(row[1]), *row[2:]) for row in rows]
    except (OSError, EOFError, ValueError, TypeError, IndexError, zlib.error) as error:
        raise DataError(
            "the list of a run's images cannot be read",
            where=path,
            got=error,
            fix="without it the run cannot be compared: train again to have one",
        ) from error


def image_changes(was: Sequence[ImageIdentity], now: Sequence[ImageIdentity]) -> Iterator[str]:
    """Sentences about what is different, some images of each kind by name; none: nothing."""
    before, after = ({image.name: image for image in images} for images in (was, now))
    both = [(before[name], image) for name, image in after.items() if name in before]
    kinds = {
        "with another content": [new.name for old, new in both if _content_differs(old, new)],
        "with other annotations": [new.name for old, new in both if old.truth != new.truth],
        "with other proposals": [new.name for old, new in both if old.proposals != new.proposals],
        "not trained on any more": [name for name in before if name not in after],
        "new": [name for name in after if name not in before],
    }
    for text, names in kinds.items():
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield f"{len(names)} image(s) {text}: {', '.join(names[:_SHOWN])}{more}"
    if not any(kinds.values()) and [i.name for i in was] != [i.name for i in now]:
        yield "the images come in another order"


def _content_differs(old: ImageIdentity, new: ImageIdentity) -> bool:
    known = _UNKNOWN not in (old.content, new.content)
    return old.size != new.size or (known and old.content != new.content)


def _size(path: str) -> int:
    """Bytes; -1 for a file that is missing, which is reported when it is read."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _name(path: str, root: Path) -> str:
    # Not `resolve`: a link in the data set is a name of its own, wherever it leads.
    relative = os.path.relpath(path, root)
    name = path if relative.startswith("..") else Path(relative).as_posix()
    return name.replace("\t", " ").replace("\n", " ")


def _truth(record: Record) -> str:
    digest = hashlib.sha256(f"{record.width} {record.height} {record.exif}".encode())
    arrays = [record.gt_boxes, record.gt_classes]
    if record.crowd_boxes is not None:
        arrays.append(record.crowd_boxes)
    for polygons in record.polygons or ():
        arrays += polygons
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()[:HASH_CHARACTERS]


def _proposals(record: Record) -> str:
    proposals = record.boxes[record.num_gt :]
    if not len(proposals):
        return _UNKNOWN
    return hashlib.sha256(np.ascontiguousarray(proposals).tobytes()).hexdigest()[:HASH_CHARACTERS]

"""Where annotation files are: in folders, or in archives as they were downloaded."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sniper.data.voc_annotation import MAX_XML_BYTES, read_xml_bytes
from sniper.errors import DataError
from sniper.progress import LongCall

XML_ENDING = ".xml"
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True, eq=False)
class AnnotationFiles:
    """Annotation files by the name of their image, without folder.

    Attributes:
        paths: files of folders.
        contents: files of archives.
        sources: the folders and archives that have some.
    """

    paths: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths.keys() | self.contents.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.paths or name in self.contents

    def read(self, name: str) -> tuple[str, bytes]:
        """Path for messages, and content; nothing for an image without a file.

        Raises:
            DataError: the file cannot be read.
        """
        if name in self.paths:
            return self.paths[name], read_xml_bytes(self.paths[name])
        return f"{name}{XML_ENDING}", self.contents.get(name, b"")


def find_annotation_files(sources: Iterable[Path], names: Container[str]) -> AnnotationFiles:
    """Looks for the annotation files of images.

    Args:
        sources: folders, which are walked, and archives, which are read through; the first one
            that has an image's file counts.
        names: of the images.

    Raises:
        DataError: an archive is broken.
    """
    files = AnnotationFiles()
    for source in sources:
        before = len(files)
        if source.is_dir():
            _take_folder(source, names, files)
        else:
            _take_archive(source, names, files)
        if len(files) > before:
            files.sources.append(source)
    return files


def archives_in(folder: Path) -> list[Path]:
    """Archives of a folder, in order."""
    return sorted(path for path in folder.glob("*.t*") if path.name.lower().endswith(_ARCHIVES))


def _take_folder(folder: Path, names: Container[str], files: AnnotationFiles) -> None:
    for parent, folders, leaves in os.walk(folder):
        folders.sort()
        for leaf in leaves:
            stem, ending = os.path.splitext(leaf)
            if ending.lower() == XML_ENDING and stem in names and stem not in files:
                files.paths[stem] = os.path.join(parent, leaf)


def _take_archive(path: Path, names: Container[str], files: AnnotationFiles) -> None:
    """Nothing is unpacked to disk: members are read one after the other."""
    try:
        with tarfile.open(path, "r|*") as archive, LongCall(f"reading {path}"):
            for member in archive:
                stem, ending = os.path.splitext(os.path.basename(member.name))
                if not member.isfile() or ending.lower() != XML_ENDING:
                    continue
                if stem not in names or stem in files or member.size > MAX_XML_BYTES:
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    files.contents[stem] = stream.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise DataError("the archive is broken or cut off", where=path, got=error) from error


def missing_files(names: Sequence[str], files: AnnotationFiles) -> list[str]:
    """The images that have no annotation file."""
    return [name for name in names if name not in files]


def covered_lists(lists: Mapping[str, Sequence[str]], files: AnnotationFiles) -> list[str]:
    """The lists all of whose images have an annotation file, the longest first."""
    covered = [name for name, images in lists.items() if not missing_files(images, files)]
    return sorted(covered, key=lambda name: -len(lists[name]))

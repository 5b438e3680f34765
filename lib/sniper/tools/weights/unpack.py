"""Safe reading of downloaded archives: nothing is written but the members that were asked for.

A hostile archive can name members `../../x` or `/x`, link out of the folder, or hold gigabytes of
zeros. Here one such member makes the whole archive unacceptable.
"""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from sniper.errors import DataError

LARGEST_MEMBER = 4 << 30
MAX_MEMBERS = 10_000
ZIP_SUFFIX = ".zip"
ARCHIVE_SUFFIXES = (ZIP_SUFFIX, ".tar", ".tar.gz", ".tgz")
BROKEN = (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    regular: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """True for the names of archives that `unpack` reads."""
    return path.name.endswith(ARCHIVE_SUFFIXES)


def unpack(path: Path, folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Writes the members with these suffixes into a folder, each into its own folders below it.

    Args:
        path: a zip or tar archive.
        folder: an existing folder; files of the same names are replaced.
        suffixes: as `.params`.

    Returns:
        The files, in the order of the archive. Below `folder` they have the archive's names.

    Raises:
        DataError: the archive is damaged, is unsafe, or holds two such files in one place.
        OSError: the disk is full.
    """
    try:
        with _open(path) as archive:
            members = list(_members(archive))
            wanted = [m for m in members if m.regular and m.name.endswith(tuple(suffixes))]
            _check(members, [str(PurePosixPath(member.name)) for member in wanted], path)
            return [_write(member, folder) for member in wanted]
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise DataError(
            "the archive cannot be read", where=path, got=error, fix="fetch it again"
        ) from error


def _open(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    return zipfile.ZipFile(path) if path.name.endswith(ZIP_SUFFIX) else tarfile.open(path)


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            yield _Member(
                entry.filename,
                entry.file_size,
                not entry.is_dir(),
                partial(archive.open, entry),
            )
        return
    for item in archive:
        if not (item.isfile() or item.isdir()):
            raise tarfile.TarError(f"{item.name!r} is a link or a device")
        yield _Member(item.name, item.size, item.isfile(), partial(archive.extractfile, item))


def _check(members: list[_Member], names: list[str], path: Path) -> None:
    problem = None
    if len(members) > MAX_MEMBERS:
        problem = f"{len(members)} members"
    for member in members:
        parts = PurePosixPath(member.name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in member.name:
            problem = f"a member {member.name!r}"
        elif member.size > LARGEST_MEMBER:
            problem = f"a member of {member.size} bytes"
    doubles = {name for name in names if names.count(name) > 1}
    if problem is None and doubles:
        problem = f"several members {sorted(doubles)[0]!r}"
    if problem is not None:
        raise DataError("the archive is not safe to unpack", where=path, got=problem)


def _write(member: _Member, folder: Path) -> Path:
    target = folder / PurePosixPath(member.name)
    source = member.open()
    if source is None:
        raise tarfile.TarError(f"{member.name!r} has no content")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)
    return target

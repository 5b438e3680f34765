"""Which files exist, asked of folders instead of files: one look per folder, not one per image."""

from __future__ import annotations

import os


class FileIndex:
    """Remembers the listing of every folder that it was asked about."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        """Whether there is an entry of that name; a folder that cannot be listed has none."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = _listing(folder)
        return name in self._names[folder]


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or "."))
    except OSError:
        return frozenset()

"""Tables of an ImageNet folder: classes, their names, their DET classes; JSON or 2018 pickles."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.dataset import BACKGROUND
from sniper.data.ilsvrc import DevKit, find_kit, read_kit
from sniper.data.legacy_pickle import read_table
from sniper.data.listings import read_class_list
from sniper.data.wordnet import WNID, WordNet, find_wordnet, read_wordnet
from sniper.errors import DataError, TrainingError
from sniper.files import atomic_write_text

logger = logging.getLogger(__name__)

# Names without ending: `.json` is read, else the pickle of 2018, `.txt`, is turned into it once.
CLUSTERS = ("3kcls_cluster_result1", "cluster_1C")
NAMES = "wnid_name_dict"
MATCHING = "3k_1C_matching"

Table = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ImagenetFolder:
    """An ImageNet folder: where its tables are, and what they say.

    Attributes:
        root: the folder.
        kit: the development kit in or beside it.
    """

    root: Path
    kit: DevKit | None

    @property
    def table_folders(self) -> list[Path]:
        """Folders that may hold tables, in order."""
        folders = [self.root / "lists", self.root]
        if self.kit is not None:
            data = self.kit.root / "data"
            folders += [data, data / "det_lists", self.kit.root / "evaluation" / "3k_1C_pred"]
        return folders

    def wordnet(self) -> WordNet | None:
        """The nouns of WordNet, if they are in the folder."""
        path = find_wordnet((*self.table_folders[:2], self.root.parent))
        return None if path is None else read_wordnet(path)


def open_folder(root: Path) -> ImagenetFolder:
    """An ImageNet folder; a development kit counts that is in it or beside it (2018 has both)."""
    kit = find_kit(root, root.parent)
    return ImagenetFolder(root, None if kit is None else read_kit(kit))


def find_table(folders: Sequence[Path], *names: str) -> tuple[Path, Table] | None:
    """The first table of one of the names, with texts for keys.

    A pickle of 2018 is read without running anything that it asks for, and written as JSON beside
    it, which is read from then on.

    Raises:
        DataError: it is broken.
    """
    for folder in folders:
        for name in names:
            path, legacy = folder / f"{name}.json", folder / f"{name}.txt"
            if path.is_file():
                return path, _read_json(path)
            if legacy.is_file():
                table = {str(key): value for key, value in read_table(legacy).items()}
                _keep(path, legacy, table)
                return legacy, table
    return None


def _read_json(path: Path) -> Table:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("a table of ImageNet cannot be read", where=path, got=error) from error
    if not isinstance(content, dict):
        raise DataError(
            "a table of ImageNet is broken",
            where=path,
            got=f"a {type(content).__name__}",
            expected="a JSON object",
        )
    return content


def _keep(path: Path, legacy: Path, table: Table) -> None:
    try:
        atomic_write_text(path, json.dumps(table, indent=0))
        logger.info(
            "%s is a pickle of 2018: written as %s, which is read from now on", legacy, path
        )
    except TrainingError:
        logger.info("%s is a pickle of 2018; its folder takes no JSON in its place", legacy)


def listed_classes(folder: ImagenetFolder) -> tuple[tuple[str, ...], Path] | None:
    """WordNet ids (or names) of the classes in their order, and where they are listed.

    `classes.txt` has one a line; else the clusters of 2018 have them, one cluster after the other.

    Raises:
        DataError: a list is broken.
    """
    for place in folder.table_folders:
        names = read_class_list(place)
        if names is not None:
            return names, place / "classes.txt"
    found = find_table(folder.table_folders, *CLUSTERS)
    if found is None:
        return None
    path, table = found
    try:
        order = sorted(table, key=int)
        names = tuple(str(wnid) for cluster in order for wnid in table[cluster])
    except (TypeError, ValueError) as error:
        raise DataError(
            "the clusters of classes are broken",
            where=path,
            got=error,
            expected='{"0": ["n01440764", ...], ...}',
        ) from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise DataError(
            "the clusters of classes are broken",
            where=path,
            got=f"{twice[0]} twice" if twice else "no class",
        )
    return names, path


def class_names(
    folder: ImagenetFolder, wnids: Sequence[str], *, is_complete: bool
) -> tuple[str, ...]:
    """Readable names, background in front: one for each id, and the same one in every set.

    They come from `wnid_name_dict`, WordNet or the development kit; ids without a name, and names
    that are no ids, stay as they are. The first word that means a class is its name; where several
    classes have it, all the words are, or else the id stands behind them.

    Args:
        folder: of the sets.
        wnids: of the classes.
        is_complete: all sets of the folder have these classes; else names must tell all synsets of
            the source from each other, so that a class has one name in all sets.
    """
    source = _name_source(folder, wnids)
    named = [source[w] for w in wnids if w in source] if is_complete else list(source.values())
    short, full = Counter(map(_first, named)), Counter(named)

    def name_of(wnid: str) -> str:
        text = source.get(wnid)
        if text is None:
            return wnid
        if short[_first(text)] == 1:
            return _first(text)
        return text if full[text] == 1 and text != _first(text) else f"{text} ({wnid})"

    return (BACKGROUND, *map(name_of, wnids))


def _first(text: str) -> str:
    return text.split(",")[0].strip()


def _name_source(folder: ImagenetFolder, wnids: Sequence[str]) -> Mapping[str, str]:
    if not any(map(WNID.fullmatch, wnids)):
        return {}
    found = find_table(folder.table_folders, NAMES)
    if found is not None:
        return {key: str(value) for key, value in found[1].items()}
    wordnet = folder.wordnet()
    if wordnet is not None:
        return wordnet.names
    if folder.kit is not None:
        return folder.kit.names
    logger.info(
        "no names of classes: they are shown by their WordNet ids (put %s.json or WordNet 3.0's "
        "dict/data.noun into %s)",
        *(NAMES, folder.root),
    )
    return {}


def det_places(folder: ImagenetFolder, kit: DevKit, wnids: Sequence[str]) -> np.ndarray:
    """(C + 1,) int32: place 1 ... K among the kit's classes of each class; 0 for none.

    The table `3k_1C_matching` of 2018 decides (from a class's place in the list, from 0 or 1, or
    from its WordNet id to the number of the DET class, or one above 200). Without it a class is
    the DET class that it is, or is a kind of: by the kit's hierarchy, and by WordNet where its
    nouns are in the folder.

    Raises:
        DataError: the table does not fit the classes.
    """
    places = {c.number: place for place, c in enumerate(kit.classes, start=1)}
    found = find_table([*folder.table_folders, kit.root / "evaluation"], MATCHING)
    if found is None:
        numbers = _by_hierarchy(kit, wnids, folder.wordnet())
    else:
        numbers = _by_table(found[0], found[1], wnids)
    matched = [places.get(number, 0) for number in numbers]
    logger.info(
        "%d of %d classes are among %d of the %d of ILSVRC DET (%s)",
        *(sum(map(bool, matched)), len(wnids), len(set(matched) - {0}), len(places)),
        "by hierarchy" if found is None else found[0],
    )
    return np.array([0, *matched], np.int32)


def _by_table(path: Path, table: Table, wnids: Sequence[str]) -> list[int]:
    try:
        if all(WNID.fullmatch(key) for key in table):
            return [int(table.get(wnid, 0)) for wnid in wnids]
        numbers = {int(key): int(value) for key, value in table.items()}
        start = min(numbers)
        if start not in (0, 1) or set(numbers) != set(range(start, start + len(wnids))):
            raise ValueError(f"{len(numbers)} entries from {start} on for {len(wnids)} classes")
        return [numbers[place] for place in range(start, start + len(wnids))]
    except (TypeError, ValueError) as error:
        raise DataError(
            "the table of DET classes does not fit the classes",
            where=path,
            got=error,
            expected="the number of a DET class for each class, by its place or WordNet id",
        ) from error


def _by_hierarchy(kit: DevKit, wnids: Sequence[str], wordnet: WordNet | None) -> list[int]:
    of_kit = {wnid: number for number, below in kit.descendants.items() for wnid in below}
    own = {c.wnid: c.number for c in kit.classes}

    def number_of(wnid: str) -> int:
        if wnid in of_kit or wordnet is None:
            return of_kit.get(wnid, 0)
        return next((own[above] for above in sorted(wordnet.ancestors(wnid) & own.keys())), 0)

    return [number_of(wnid) for wnid in wnids]

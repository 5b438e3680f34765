"""WordNet's nouns: names of synsets and what they are a kind of.

The ids of ImageNet are offsets into `data.noun` of WordNet 3.0, with an `n` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sniper.errors import DataError

WNID = re.compile(r"n\d{8}")
FILE_NAME = "data.noun"
_VERSION = "WordNet 3.0 "
_HEADER_CHARS = 4000
_HYPERNYMS = ("@", "@i")


@dataclass(frozen=True, eq=False)
class WordNet:
    """The nouns of a WordNet.

    Attributes:
        names: WordNet id -> words that mean it, joined by a comma and a blank.
        parents: WordNet id -> ids of what it is a kind or an instance of.
    """

    names: dict[str, str]
    parents: dict[str, tuple[str, ...]]

    def ancestors(self, wnid: str) -> set[str]:
        """A synset and all that it is a kind of; itself alone where it is unknown."""
        seen, waiting = {wnid}, [wnid]
        while waiting:
            for parent in self.parents.get(waiting.pop(), ()):
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
        return seen


def read_wordnet(path: Path) -> WordNet:
    """Reads `data.noun` of WordNet 3.0.

    Raises:
        DataError: it cannot be read, is broken, or is of another version, whose offsets differ.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError("WordNet's nouns cannot be read", where=path, got=error) from error
    if _VERSION not in text[:_HEADER_CHARS]:
        raise DataError(
            "these are not the nouns of WordNet 3.0",
            where=path,
            expected="dict/data.noun of WordNet 3.0: ImageNet's ids are its offsets",
        )
    names, parents = {}, {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(" ") or not line:  # the licence
            continue
        try:
            wnid, words, of_synset = _synset(line)
        except (ValueError, IndexError) as error:
            raise DataError(
                "WordNet's nouns are broken", where=f"{path}, line {number}", got=line[:100]
            ) from error
        names[wnid], parents[wnid] = words, of_synset
    return WordNet(names, parents)


def _synset(line: str) -> tuple[str, str, tuple[str, ...]]:
    """`offset file type count(hex) word id ... count pointer offset type source/target ... | `"""
    words = line.split("|", 1)[0].split()
    count = int(words[3], 16)
    names = [word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2]]
    rest = words[4 + 2 * count :]
    pointers = [rest[1 + 4 * i : 5 + 4 * i] for i in range(int(rest[0]))]
    parents = tuple(f"n{offset}" for symbol, offset, *_ in pointers if symbol in _HYPERNYMS)
    if len(names) != count or not WNID.fullmatch(f"n{words[0]}"):
        raise ValueError(line)
    return f"n{words[0]}", ", ".join(names), parents


def find_wordnet(folders: Iterable[Path]) -> Path | None:
    """`data.noun` in one of the folders, as archives of WordNet and packages of it lay it out."""
    places = (".", "dict", "wordnet", "wordnet/dict", "WordNet-3.0/dict", "WNdb-3.0/dict")
    candidates = (folder / place / FILE_NAME for folder in folders for place in places)
    return next((path for path in candidates if path.is_file()), None)

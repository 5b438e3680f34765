"""Problems of a data set, counted by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ERROR, WARNING = "error", "warning"

# Beyond so many of a kind only their number is kept.
MOST_KEPT = 1000


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        name: its name in the JSON file.
        severity: `error`: training refuses the data or would learn nonsense; `warning`: training
            works, but not on everything.
        title: what is wrong, in the plural.
        fix: what to do.
    """

    name: str
    severity: str
    title: str
    fix: str


_ALL = (
    Kind(
        "annotations",
        ERROR,
        "annotations that cannot be read",
        "check dataset.dataset_path and the names of the sets, or write the files again",
    ),
    Kind("broken_entry", ERROR, "broken entries of the annotations", "correct or remove them"),
    Kind("duplicate_id", ERROR, "ids that are used twice", "give every image and category its own"),
    Kind(
        "duplicate_name",
        ERROR,
        "names that are used twice",
        "join the entries: objects of the one are background in the other",
    ),
    Kind("classes", ERROR, "classes that do not fit", "correct dataset.NUM_CLASSES or the sets"),
    Kind("missing_file", ERROR, "missing images", "put the files there, or remove their entries"),
    Kind("unreadable_file", ERROR, "unreadable images", "copy or download them again"),
    Kind(
        "size_mismatch",
        ERROR,
        "images of another size than their annotations say",
        "correct width and height (of the stored pixels, before EXIF orientation), and the boxes",
    ),
    Kind(
        "proposals",
        ERROR,
        "proposals that do not fit",
        "extract them for this set, or --set TRAIN.USE_NEG_CHIPS False",
    ),
    Kind("loader", ERROR, "sets that training would refuse", "see the message"),
    Kind(
        "duplicate_annotation",
        WARNING,
        "annotation ids that are used twice",
        "other tools keep only one of them",
    ),
    Kind("shared_image", WARNING, "images that are in more than one set", "keep one of them"),
    Kind("orphan", WARNING, "annotations of images that are not listed", "they are left out"),
    Kind("box_degenerate", WARNING, "boxes without extent", "they are left out; remove or correct"),
    Kind("box_outside", WARNING, "boxes outside their image", "they are left out"),
    Kind("box_cut", WARNING, "boxes that reach beyond their image", "they are cut at the border"),
    Kind("empty_class", WARNING, "classes without objects", "the detector cannot learn them"),
    Kind(
        "untrainable",
        WARNING,
        "boxes that no chip of the pyramid trains",
        "sniper suggest-scales proposes a pyramid; sniper chip-stats shows the sizes",
    ),
    Kind(
        "crowded_chip",
        WARNING,
        "chips with more boxes than TRAIN.MAX_GT",
        "the surplus is dropped: raise TRAIN.MAX_GT, or take a smaller TRAIN.CHIP_SIZE",
    ),
)
KINDS = {kind.name: kind for kind in _ALL}


@dataclass(frozen=True)
class Finding:
    """One problem: where it is, and what it is."""

    where: str
    text: str


@dataclass
class Findings:
    """All problems found so far.

    Attributes:
        counts: how many there are of each kind.
        examples: the first `MOST_KEPT` of each kind.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, kind: str, where: object, text: str) -> None:
        """Takes note of a problem; `kind` is a key of `KINDS`."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < MOST_KEPT:
            kept.append(Finding(str(where), text))

    def count(self, severity: str) -> int:
        """Problems of one severity."""
        return sum(count for kind, count in self.counts.items() if _is(kind, severity))

    def kinds(self, severity: str) -> Iterator[tuple[Kind, int, list[Finding]]]:
        """Kind, number and examples of all problems of one severity, in the order of `KINDS`."""
        for kind in _ALL:
            if kind.name in self.counts and kind.severity == severity:
                yield kind, self.counts[kind.name], self.examples[kind.name]

    def to_json(self) -> list[dict[str, Any]]:
        """One entry per kind that was found, errors first."""
        return [
            {
                "kind": kind.name,
                "severity": severity,
                "title": kind.title,
                "fix": kind.fix,
                "count": count,
                "examples": [vars(example) for example in examples],
            }
            for severity in (ERROR, WARNING)
            for kind, count, examples in self.kinds(severity)
        ]


def _is(kind: str, severity: str) -> bool:
    return KINDS[kind].severity == severity

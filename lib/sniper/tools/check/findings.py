"""Problems of a data set, counted by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sniper.data import problems
from sniper.data.problems import ERROR, WARNING, Problem, ProblemKind, first_lines
from sniper.data.wider import INVALID_FACE
from sniper.data.yolo import LONELY_LABELS, UNLABELLED
from sniper.errors import SniperError

# Beyond so many of a kind only their number is kept.
MOST_KEPT = 1000

# In the order of reports. Those of `problems` come from the readers, all others from here.
_ALL = (
    problems.ANNOTATIONS,
    problems.BROKEN_ENTRY,
    problems.DUPLICATE_ID,
    problems.DUPLICATE_NAME,
    problems.DUPLICATE_CATEGORY,
    problems.FRACTIONS,
    problems.CORNERS,
    ProblemKind(
        "classes", ERROR, "classes that do not fit", "correct dataset.NUM_CLASSES or the sets"
    ),
    problems.MISSING_FILE,
    problems.UNREADABLE_FILE,
    ProblemKind(
        "size_mismatch",
        ERROR,
        "images of another size than their annotations say",
        "correct width and height (of the stored pixels, before EXIF orientation), and the boxes",
    ),
    ProblemKind(
        "proposals",
        ERROR,
        "proposals that do not fit",
        "extract them for this set, or --set TRAIN.USE_NEG_CHIPS False",
    ),
    ProblemKind("loader", ERROR, "sets that training would refuse", "see the message"),
    problems.AMBIGUOUS_TURN,
    problems.TURNED,
    problems.DUPLICATE_ANNOTATION,
    ProblemKind(
        "shared_image", WARNING, "images that are in more than one set", "keep one of them"
    ),
    problems.EMPTY_ROOT,
    problems.ALIKE_CATEGORIES,
    problems.RELATED_PATH,
    problems.SIMILAR_NAME,
    problems.UNKNOWN_NAME,
    problems.UNCLEAR_DIFFICULT,
    problems.REPEATED_IMAGE,
    problems.ORPHAN,
    problems.CROWD,
    problems.IGNORED,
    INVALID_FACE,
    problems.REPEATED_OBJECT,
    UNLABELLED,
    LONELY_LABELS,
    problems.BOX_DEGENERATE,
    problems.BOX_NO_AREA,
    problems.AREA_FROM_BOX,
    problems.NO_MASK,
    problems.MASK_ELSEWHERE,
    problems.BOX_OUTSIDE,
    problems.BOX_CUT,
    problems.BOX_MOVED,
    problems.BOX_TRUNCATED,
    ProblemKind(
        "partial_classes",
        WARNING,
        "joined sets without classes that others have",
        "annotate these objects there too: in its images they count as background",
    ),
    ProblemKind(
        "empty_class", WARNING, "classes without objects", "the detector cannot learn them"
    ),
    ProblemKind(
        "untrainable",
        WARNING,
        "boxes that no chip of the pyramid trains",
        "sniper suggest-scales proposes a pyramid; sniper chip-stats shows the sizes",
    ),
    ProblemKind(
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
    # Readers of other packages may have kinds of their own, which stand behind ours.
    _kinds: dict[str, ProblemKind] = field(default_factory=lambda: dict(KINDS))

    def add(self, kind: str, where: object, text: str) -> None:
        """Takes note of a problem; `kind` is a key of `KINDS`."""
        self.take(Problem(KINDS[kind], str(where), 1, [text]))

    def add_error(self, kind: str, where: str | Path, error: SniperError) -> None:
        """Takes note of what a part of the library raised."""
        # Other kinds say what to do in their title; the loader has many reasons.
        self.add(kind, where, first_lines(error, with_fix=kind == "loader"))

    def take(self, problem: Problem) -> None:
        """The `on_problem` of readers: takes note, and lets them go on."""
        name = problem.kind.name
        self._kinds.setdefault(name, problem.kind)
        self.counts[name] = self.counts.get(name, 0) + problem.count
        kept = self.examples.setdefault(name, [])
        texts = islice(problem.texts, MOST_KEPT - len(kept))
        kept.extend(Finding(problem.where, text) for text in texts)

    def count(self, severity: str) -> int:
        """Problems of one severity."""
        return sum(
            count for name, count in self.counts.items() if self._kinds[name].severity == severity
        )

    def kinds(self, severity: str) -> Iterator[tuple[ProblemKind, int, list[Finding]]]:
        """Kind, number and examples of all problems of one severity, in the order of `KINDS`."""
        for kind in self._kinds.values():
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

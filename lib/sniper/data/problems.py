"""Problems of a data set: training stops at the first error, `sniper check-data` collects them all.

Both get them from the same reader through its `on_problem`, so that both see the same truth. A
reader that comes back from reporting an error leaves the entry out and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sniper.errors import DataError, SniperError

logger = logging.getLogger(__name__)

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class ProblemKind:
    """A kind of problem.

    Attributes:
        name: its name in JSON files.
        severity: `error`: training refuses the data or would learn nonsense; `warning`: training
            works, but not on everything.
        title: what is wrong, in the plural.
        fix: what to do, or what becomes of the entries.
    """

    name: str
    severity: str
    title: str
    fix: str


@dataclass(frozen=True, eq=False)
class Problem:
    """What a reader came upon: one error, or all warnings of a kind in a file.

    Attributes:
        kind: what kind of problem.
        where: the set or the file.
        count: how many there are.
        texts: one text for each, made on demand: read them once.
        error: what training raises; None for warnings.
    """

    kind: ProblemKind
    where: str
    count: int
    texts: Iterable[str]
    error: DataError | None = None


OnProblem = Callable[[Problem], None]


def stop_at_errors(problem: Problem) -> None:
    """What training does: an error ends the reading, warnings are counted in the log.

    Raises:
        DataError: that of the problem.
    """
    if problem.error is not None:
        raise problem.error
    kind = problem.kind
    logger.warning("%s: %d %s (%s)", problem.where, problem.count, kind.title, kind.fix)


def first_lines(error: SniperError, *, with_fix: bool = False) -> str:
    """The message of an error in one line: what, what was found and expected, and what to do."""
    lines = [line.strip() for line in str(error).splitlines()]
    shown = ("where:", "got:", "expected:", "fix:") if with_fix else ("got:", "expected:")
    details = [line for line in lines[1:] if line.startswith(shown)]
    return "; ".join([lines[0], *details])


ANNOTATIONS = ProblemKind(
    "annotations",
    ERROR,
    "annotations that cannot be read",
    "check dataset.dataset_path and the names of the sets, or write the files again",
)
BROKEN_ENTRY = ProblemKind(
    "broken_entry", ERROR, "broken entries of the annotations", "correct or remove them"
)
DUPLICATE_ID = ProblemKind(
    "duplicate_id", ERROR, "ids that are used twice", "give every image and category its own"
)
DUPLICATE_NAME = ProblemKind(
    "duplicate_name",
    ERROR,
    "names that are used twice",
    "join the entries: objects of the one are background in the other",
)
REPEATED_IMAGE = ProblemKind(
    "repeated_image",
    WARNING,
    "image files that are listed twice in the set",
    "join their entries: the objects of the one are background in the other",
)
DUPLICATE_CATEGORY = ProblemKind(
    "duplicate_category",
    ERROR,
    "categories that are used twice",
    "give every class its own id and name, or join the two in all annotations",
)
EMPTY_ROOT = ProblemKind(
    "empty_root",
    WARNING,
    "categories above all classes (as Roboflow exports them)",
    "they have no objects and are no classes: left out",
)
ALIKE_CATEGORIES = ProblemKind(
    "alike_categories",
    WARNING,
    "classes whose names differ in capitals or spaces only",
    "they are trained as different classes: if they are one, give it one name and one id",
)
RELATED_PATH = ProblemKind(
    "related_path",
    WARNING,
    "file names that are written for another folder or system",
    "the images were found by the end of their paths",
)
SIMILAR_NAME = ProblemKind(
    "similar_name",
    WARNING,
    "names that differ from their files in case or in how accents are encoded",
    "the only file that fits is taken, as Windows and macOS do; write the names alike",
)
UNCLEAR_DIFFICULT = ProblemKind(
    "unclear_difficult",
    WARNING,
    "objects whose <difficult> says neither yes nor no",
    "they are trained and evaluated as not difficult",
)
TURNED = ProblemKind(
    "turned",
    WARNING,
    "images that are turned as their EXIF orientation says",
    "their annotated size fits the picture as it is shown; dataset.EXIF ignore takes stored pixels",
)
AMBIGUOUS_TURN = ProblemKind(
    "ambiguous_turn",
    WARNING,
    "images whose EXIF orientation leaves their size alone",
    "boxes are taken for those of the picture as it is shown (of TIFFs: as it is stored); look at "
    "some with sniper show-chips, and set dataset.EXIF to ignore or apply where they do not fit",
)
MISSING_FILE = ProblemKind(
    "missing_file", ERROR, "missing images", "put the files there, or remove their entries"
)
UNREADABLE_FILE = ProblemKind(
    "unreadable_file", ERROR, "unreadable images", "copy or download them again"
)
DUPLICATE_ANNOTATION = ProblemKind(
    "duplicate_annotation",
    WARNING,
    "annotation ids that are used twice",
    "other tools keep only one of them",
)
ORPHAN = ProblemKind(
    "orphan", WARNING, "annotations of images that are not listed", "they are left out"
)
CROWD = ProblemKind(
    "crowd",
    WARNING,
    "annotations marked iscrowd",
    "they are left out, as regions that hold many objects; if they are single objects (some tools "
    "mark every run-length mask), set iscrowd to 0",
)
UNKNOWN_NAME = ProblemKind(
    "unknown_name",
    WARNING,
    "objects of classes that are not listed",
    "they are left out; list their classes to have them",
)
IGNORED = ProblemKind(
    "ignored", WARNING, "annotations flagged `ignore`", "they are left out, as crowd regions are"
)
REPEATED_OBJECT = ProblemKind(
    "repeated_object",
    WARNING,
    "objects that are listed twice: same image, class and box",
    "all are trained; remove the copies, which fill TRAIN.MAX_GT and cost AP in the test",
)
FRACTIONS = ProblemKind(
    "fractions",
    ERROR,
    "boxes whose coordinates lie between 0 and 1: fractions of the image?",
    "boxes are in px: multiply x and width by the image's width, y and height by its height",
)
CORNERS = ProblemKind(
    "corners",
    ERROR,
    "boxes that look like [x1, y1, x2, y2]",
    "COCO boxes are [x, y, width, height]: write x2 - x1 and y2 - y1 in place of x2 and y2",
)
BOX_DEGENERATE = ProblemKind(
    "box_degenerate", WARNING, "boxes without extent", "they are left out; remove or correct"
)
BOX_NO_AREA = ProblemKind(
    "box_no_area",
    WARNING,
    "boxes with area 0",
    "they are left out, as in 2018; --set TRAIN.LEGACY_BOXES False trains them",
)
AREA_FROM_BOX = ProblemKind(
    "area_from_box",
    WARNING,
    "annotations with area 0, but a box that has one",
    "they are trained, their area is that of the box; tests count them as small objects",
)
NO_MASK = ProblemKind(
    "no_mask",
    WARNING,
    "objects without a mask",
    "they train the box, not the mask: give them polygons or run lengths",
)
MASK_ELSEWHERE = ProblemKind(
    "mask_elsewhere",
    WARNING,
    "masks that have no part in the box of their object",
    "the object's mask is trained as empty: correct the outline or the box",
)
BOX_OUTSIDE = ProblemKind(
    "box_outside",
    WARNING,
    "boxes outside their image",
    "they are left out",
)
BOX_CUT = ProblemKind(
    "box_cut", WARNING, "boxes that reach beyond their image", "they are cut at the border"
)
BOX_MOVED = ProblemKind(
    "box_moved",
    WARNING,
    "boxes that start left of their image or above it",
    "they are moved inwards and keep their size, as in 2018; "
    "--set TRAIN.LEGACY_BOXES False cuts them at the border",
)
BOX_TRUNCATED = ProblemKind(
    "box_truncated",
    WARNING,
    "boxes whose corners are not on whole px",
    "their corners are truncated to whole px, as in 2018, half a px to the left and upwards in "
    "the mean; --set TRAIN.LEGACY_BOXES False keeps the fractions",
)

"""Which images of a set are turned by their EXIF orientation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sniper.data.image_header import image_size
from sniper.data.orientation import IGNORE, orientation_of
from sniper.data.problems import AMBIGUOUS_TURN, TURNED, ProblemKind
from sniper.data.record import Record
from sniper.errors import DataError

_THREADS = 8  # reading headers waits for the disk


def turn_of(record: Record) -> ProblemKind | None:
    """What there is to tell about the orientation of an image's file; None for nothing."""
    orientation = orientation_of(record.image_path)
    frame = record.frame
    if orientation == 1 or frame.rule == IGNORE:
        return None
    if frame.is_ambiguous(orientation):
        return AMBIGUOUS_TURN
    try:
        shown = image_size(record.image_path)
    except DataError:  # told where images are checked
        return None
    return TURNED if shown == (record.width, record.height) else None


def count_turns(records: Sequence[Record]) -> Counter[str]:
    """How many images are turned, and how many of these have an ambiguous size."""
    with ThreadPoolExecutor(_THREADS) as threads:
        kinds = threads.map(turn_of, records)
        return Counter(kind.name for kind in kinds if kind is not None)

"""What a detector has to tell its user, each thing once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from sniper.data import Record
from sniper.data.detections import DetectionTable
from sniper.inference.level import Level
from sniper.inference.merge_levels import first_cut_image

logger = logging.getLogger(__name__)


class Notices:
    """Warnings for whoever has first cause for them; threads may share it."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def tell_cut(
        self, records: Sequence[Record], table: DetectionTable, max_per_image: int
    ) -> None:
        """Says that the cap of an image may have cost objects, not only noise."""
        if "cut" in self._told:
            return
        index = first_cut_image(table, max_per_image)
        if index is None or not self._is_first("cut"):
            return
        logger.warning(
            "%s: all %d detections that are kept of an image (TEST.MAX_PER_IMAGE) are used up, "
            "the weakest with score %.2f: objects may be left out, here and in other images; "
            "--set TEST.MAX_PER_IMAGE 0 keeps all",
            *(records[index].image_path, max_per_image),
            float(table[index].rows[:, 4].min()),
        )

    def tell_bound(self, records: Sequence[Record], level: Level, number: int) -> None:
        """Says that a level, counted from 1, sees images smaller than its scale asks for."""
        what = f"level {number}"
        if not level.max_pixels or what in self._told:
            return
        record = next((record for record in records if level.is_bound(record)), None)
        if record is None or not self._is_first(what):
            return
        asked, factor = level.asked_factor(record), level.factor(record)
        width, height = level.most_sides(record)
        logger.warning(
            "%s: level %d would have %.0f x %.0f px and gets %.0f x %.0f (TEST.MAX_PIXELS %d): "
            "small objects may be left out, here and in other large images; a larger limit takes "
            "more memory, mode slice sees them in parts",
            *(record.image_path, number, width * asked, height * asked),
            *(width * factor, height * factor, level.max_pixels),
        )

    def _is_first(self, what: str) -> bool:
        with self._lock:
            is_first = what not in self._told
            self._told.add(what)
        return is_first

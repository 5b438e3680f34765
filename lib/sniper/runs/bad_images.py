"""Images of a test that cannot be read: the first one ends it, or all are left out and listed."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sniper.data import Dataset, Record
from sniper.data.image import check_size, read_image
from sniper.data.picture_notes import keep_quiet
from sniper.data.problems import MISSING_FILE, UNREADABLE_FILE, Problem, stop_at_errors
from sniper.errors import DataError
from sniper.files import atomic_write_text
from sniper.inference.detector import Detector
from sniper.process import usable_cores
from sniper.progress import Progress
from sniper.runs.datasets import DataSource, open_dataset

logger = logging.getLogger(__name__)

_SHOWN = 20


class BadImages:
    """What a test does with them.

    Args:
        skip: `TEST.SKIP_BAD_IMAGES`. Sets with annotations are tested as a whole or not at all:
            numbers without some of their images would be those of another set.
    """

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self._errors: list[DataError] = []
        self._left_out: list[str] = []

    def open_dataset(self, source: DataSource, image_set: str) -> Dataset:
        """The set, without images that are not there or have no size.

        Raises:
            DataError: there are such images, and they are not to be left out.
        """
        if not self._skip:
            return open_dataset(source, image_set)
        dataset = open_dataset(source, image_set, on_problem=self._note)
        if dataset.has_annotations:
            self._skip = False
            logger.info(
                "TEST.SKIP_BAD_IMAGES is not in force: a set with annotations is tested as a whole"
            )
            if self._errors:
                raise self._errors[0]
        return dataset

    def leave_out(self, dataset: Dataset, detector: Detector) -> Dataset:
        """The set without images that cannot be decoded or are too thin; reads all of them.

        Raises:
            DataError: none is left.
        """
        if not self._skip:
            return dataset
        records = []
        progress = Progress("images checked", len(dataset.records))
        with ThreadPoolExecutor(usable_cores()) as pool:
            problems = pool.map(lambda record: _problem(record, detector), dataset.records)
            for done, (record, problem) in enumerate(zip(dataset.records, problems), 1):
                if problem is None:
                    records.append(record)
                else:
                    self._left_out.append(f"{record.image_path} ({problem})")
                progress.tell(done)
        if not records:
            raise DataError(
                "no image of the set can be read", where=dataset.name, got=self._listing()
            )
        return replace(dataset, records=tuple(records))

    def tell(self, path: Path) -> None:
        """Writes the list of what was left out, when everything else is written.

        Raises:
            DataError: something was left out.
        """
        if not self._left_out:
            path.unlink(missing_ok=True)
            return
        atomic_write_text(path, json.dumps({"skipped": self._left_out}, indent=1) + "\n")
        raise DataError(
            f"{len(self._left_out)} images were left out, since they cannot be read; results of "
            "the others are written",
            where=path,
            got=self._listing(),
        )

    def _note(self, problem: Problem) -> None:
        if problem.kind not in (MISSING_FILE, UNREADABLE_FILE) or problem.error is None:
            stop_at_errors(problem)
            return
        self._errors.append(problem.error)
        self._left_out.extend(problem.texts)

    def _listing(self) -> str:
        more = len(self._left_out) - _SHOWN
        shown = self._left_out[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        return "".join(f"\n    {entry}" for entry in shown)


def _problem(record: Record, detector: Detector) -> str | None:
    try:
        # It is read again for detection, which tells what is odd.
        image = read_image(record.image_path, frame=record.frame, on_note=keep_quiet)
        check_size(image, record)
        detector.check_image(record)
    except DataError as error:
        return str(error).splitlines()[0]
    return None

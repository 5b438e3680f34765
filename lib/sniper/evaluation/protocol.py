"""What a protocol of evaluation is: result files, numbers, and what counts as an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import ConfigError
from sniper.evaluation.report import PrecisionRecall, Report


@dataclass(frozen=True, eq=False)
class Objects:
    """M annotated objects, ordered by image.

    Attributes:
        images: (M,) int64 index into the records, rising.
        classes: (M,) int32.
        boxes: (M, 4) float64 x y width height, image px, as annotated.
        ignored: (M,) bool: crowd regions and difficult objects, which need not be found.
        crowd: (M,) bool: regions that may hold several objects.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def of_image(self, index: int) -> slice:
        """Where the objects of an image stand."""
        start, stop = np.searchsorted(self.images, [index, index + 1])
        return slice(int(start), int(stop))

    def by_image(self) -> Objects:
        """The same objects in the order of their images."""
        order = np.argsort(self.images, kind="stable")
        fields = ("images", "classes", "boxes", "ignored", "crowd")
        return Objects(*(getattr(self, name)[order] for name in fields))


class NamedCurve(NamedTuple):
    """A curve for the eye: (n,) recall, rising, and (n,) precision, with the name of the curve."""

    name: str
    recall: np.ndarray
    precision: np.ndarray


class CurvePlot(NamedTuple):
    """Precision over recall to be drawn: the end of the picture's name, its heading, the curves.

    The curves are those of classes and IoU thresholds, or some with names. The note says how the
    detector looked, where that is known.
    """

    suffix: str
    heading: str
    curves: PrecisionRecall | Sequence[NamedCurve]
    note: str = ""


class Evaluated(NamedTuple):
    """The report of a result file, and how many of its detections were left out as unknown."""

    report: Report
    left_out: int


ReportT = TypeVar("ReportT", bound=Report)


class EvaluationProtocol(ABC, Generic[ReportT]):
    """One way to evaluate detections.

    A data set names its protocol; nothing else asks which it is. Subclasses are registered with
    `sniper.evaluation.register_protocol` or an entry point of the group `sniper.protocols`.
    """

    @property
    @abstractmethod
    def headline(self) -> tuple[str, ...]:
        """Fields of the report that compare two networks; the first chooses the best weights."""

    @property
    def deciding(self) -> str:
        """The field of the report that chooses the best weights of a training run."""
        return self.headline[0]

    @abstractmethod
    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes the result files and says in the log where they are.

        Args:
            folder: of all results; made when missing.
            dataset: the set that was detected on.
            table: its detections.

        Raises:
            DataError: the detections do not fit the set.
            TrainingError: a file could not be written.
        """

    @abstractmethod
    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """What `read` takes to read what `write` wrote into a folder."""

    @abstractmethod
    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads result files back, whoever wrote them; masks are left out.

        Raises:
            DataError: they are missing, broken, or of another set.
        """

    @abstractmethod
    def evaluate(self, dataset: Dataset, table: DetectionTable) -> ReportT | None:
        """The numbers of detections, which are those of the result files.

        Returns:
            The report; None, with the reason in the log, for sets without annotations.

        Raises:
            DataError: the annotations are broken, or the detections do not fit the set.
        """

    @abstractmethod
    def objects(self, dataset: Dataset) -> Objects:
        """The objects of a set with annotations, in any order; see `objects_of`."""

    def curves(self, dataset: Dataset, report: ReportT) -> list[CurvePlot]:
        """Curves of a report of this protocol that are worth a picture."""
        return []

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """The annotations of a set for `evaluate_files`: images are neither looked up nor opened.

        Args:
            path: what `sniper evaluate --truth` names.
            image_set: the set, where `path` holds several; None to find it out.
            results: the result files, whose names may tell the set.

        Raises:
            ConfigError: the protocol has no evaluation of files, or the set must be named.
            DataError: there are no annotations, or they are broken.
        """
        raise ConfigError(f"{type(self).__name__} does not evaluate result files")

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of result files of any detector, taken as they are in the files.

        Args:
            dataset: of `read_truth`.
            path: what `sniper evaluate --results` names.
            leave_out_unknown: leave detections out whose image or class the set does not have;
                else they are an error.

        Raises:
            DataError: files are missing or broken, or detections do not fit the set.
        """
        raise ConfigError(f"{type(self).__name__} does not evaluate result files")

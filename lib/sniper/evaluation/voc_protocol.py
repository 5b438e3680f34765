"""The protocol of Pascal VOC: boxes, AP at one overlap, difficult objects."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.detections import DetectionTable
from sniper.data.listings import read_class_list
from sniper.data.voc import read_voc_truth
from sniper.data.voc_layout import VOC_CLASSES, parse_set
from sniper.errors import ConfigError, DataError
from sniper.evaluation.protocol import Evaluated, EvaluationProtocol, Objects
from sniper.evaluation.report import reason_not_evaluated
from sniper.evaluation.voc import VocReport, evaluate_voc
from sniper.evaluation.voc_files import (
    read_voc_results,
    read_voc_rows,
    result_sets,
    voc_rows,
    voc_truth,
    write_voc_results,
)

logger = logging.getLogger(__name__)

_LISTS = Path("ImageSets") / "Main"


class VocProtocol(EvaluationProtocol[VocReport]):
    """A text file per class; `map50` decides; difficult objects need not be found."""

    headline = ("map50", "map70")

    def write(self, folder: Path, dataset: Dataset, table: DetectionTable) -> None:
        """Writes `VOC<year>/Main/comp4_det_<set>_<class>.txt`."""
        if table.has_masks:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        path = write_voc_results(folder, dataset, voc_rows(dataset, table))
        logger.info("%d detections in %s", table.num_detections, path)

    def results_path(self, folder: Path, dataset: Dataset) -> Path:
        """The folder itself: it holds `VOC<year>/Main`."""
        return folder

    def read(self, path: Path, dataset: Dataset) -> DetectionTable:
        """Reads the text files of a folder."""
        return read_voc_results(path, dataset)

    def evaluate(self, dataset: Dataset, table: DetectionTable) -> VocReport | None:
        """See `evaluate_voc`."""
        return evaluate_voc(dataset, voc_rows(dataset, table))

    def objects(self, dataset: Dataset) -> Objects:
        """All annotated objects; difficult ones need not be found."""
        truth = voc_truth(dataset)
        place = {record.image_id: index for index, record in enumerate(dataset.records)}
        images = np.array([place.get(i, -1) for i in truth.image_ids.tolist()], np.int64)
        # A part of a set is evaluated with the truth of the whole set.
        in_set = images >= 0
        corners = truth.boxes[in_set].astype(np.float64)
        return Objects(
            images=images[in_set],
            classes=truth.classes[in_set].astype(np.int32),
            boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1),
            ignored=truth.difficult[in_set].astype(bool),
            crowd=np.zeros(int(in_set.sum()), bool),
        )

    def read_truth(self, path: Path, image_set: str | None, results: Path) -> Dataset:
        """Reads the annotations of a list, a folder `VOC<year>`, or a folder of these.

        In a folder the set is named by `image_set` (`2007_test`, or `test` where there is one
        year); without it, the one list that the names of the result files fit is taken.
        """
        return read_voc_truth(path if path.is_file() else _find_list(path, image_set, results))

    def evaluate_files(self, dataset: Dataset, path: Path, *, leave_out_unknown: bool) -> Evaluated:
        """The numbers of the text files of a folder."""
        results = read_voc_rows(path, dataset, leave_out_unknown=leave_out_unknown)
        report = evaluate_voc(dataset, results.rows)
        if report is None:
            raise DataError(reason_not_evaluated(dataset) or "there is nothing to evaluate")
        return Evaluated(report, results.left_out)


def _find_list(path: Path, image_set: str | None, results: Path) -> Path:
    """The list of a set in a folder `VOC<year>` or above it."""
    years = [path] if (path / _LISTS).is_dir() else sorted(path.glob(f"*/{_LISTS}"))
    years = [year if year == path else year.parents[1] for year in years]
    if not years:
        raise DataError(
            "there is no Pascal VOC set", where=path, expected=f"VOC<year>/{_LISTS}/<set>.txt"
        )
    if image_set is None:
        lists = [list_path for year in years for list_path in _lists_of_results(year, results)]
    else:
        named = [year / _LISTS / f"{image_set}.txt" for year in years]
        lists = [list_path for list_path in named if list_path.is_file()]
        if not lists and "_" in image_set:
            word, subset = parse_set(image_set)
            lists = [y / _LISTS / f"{subset}.txt" for y in years if y.name == f"VOC{word}"]
    if len(lists) != 1:
        candidates = ", ".join(map(str, lists)) or "none"
        raise ConfigError(
            "which set was detected on?",
            where=path,
            got=f"sets that fit: {candidates}",
            fix="name it: --image_set 2007_test",
        )
    return lists[0]


def _lists_of_results(year: Path, results: Path) -> list[Path]:
    """The lists of a year's folder that result files are named after."""
    names = read_class_list(year, year.parent) or VOC_CLASSES
    word = year.name[3:] if year.name.startswith("VOC") else year.name
    sets = result_sets(results, word, (BACKGROUND, *names))
    return [path for path in sorted((year / _LISTS).glob("*.txt")) if path.stem in sets]

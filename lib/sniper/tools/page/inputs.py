"""What the page is made of: data sets, the log of a run, results of a test, or why not."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from easydict import EasyDict

from sniper.chips.account import Account
from sniper.chips.measures import Measures, evenly, measure
from sniper.chips.sampler import make_epoch
from sniper.data import Dataset
from sniper.data.one_class import as_one_class
from sniper.errors import DataError, SniperError
from sniper.evaluation import CurvePlot, Report, protocol_of, reason_not_evaluated
from sniper.inference.level import Level
from sniper.progress import LongCall
from sniper.runs.datasets import open_dataset, training_account
from sniper.runs.folders import results_folder
from sniper.runs.levels import levels_of, mode_in_force
from sniper.runs.resolve import chip_settings, data_source, training_sets
from sniper.runs.start_up_report import range_text
from sniper.tools.explain.chip_numbers import ChipStatistics, statistics
from sniper.tools.explain.error_study import Study, study
from sniper.tools.explain.training_set import TrainingSet, read_sets
from sniper.tools.plot_log import read_run
from sniper.vis.curves import RunCurves

logger = logging.getLogger(__name__)

# Chips are looked at closely in so many images: more change no figure that a reader sees.
_MEASURED_IMAGES = 10000
_MODES = ("single", "pyramid", "focus", "slice")


@dataclass(frozen=True)
class Missing:
    """Why a part of the page is not there, and the command that makes it; may be empty."""

    sentence: str
    command: str = ""


@dataclass(frozen=True, eq=False)
class TrainingPart:
    """The training sets and their chips.

    Attributes:
        data: the records.
        sets: as they are on disk.
        account: of the annotations.
        measures: of the chips of the first epoch, of `looked_at` records.
        numbers: the same as figures.
        looked_at: how many records the measures are of; fewer than all for very large sets.
        note: what was left out; often empty.
    """

    data: TrainingSet
    sets: tuple[Dataset, ...]
    account: Account
    measures: Measures
    numbers: ChipStatistics
    looked_at: int
    note: str


@dataclass(frozen=True)
class TestLevel:
    """A level of the test.

    Attributes:
        name: `960 \u00d7 1280 px` (short side, longest long side) or `x2` (factor).
        low: least size of the objects that it may find, image px; 0 or less: none.
        high: the size from which it finds none; the same.
    """

    name: str
    low: float
    high: float

    @property
    def sizes(self) -> str:
        """The valid range in words."""
        if self.low <= 0 and self.high <= 0:
            return "all sizes"
        high = self.high if self.high > 0 else -1.0
        return f"{range_text([(self.low, high), (0, 0)], 0)} px"

    def holds(self, sides: np.ndarray) -> np.ndarray:
        """(n,) bool: sizes, image px, that the level may find."""
        high = self.high if self.high > 0 else np.inf
        return (sides >= self.low) & (sides < high)


@dataclass(frozen=True, eq=False)
class Results:
    """The detections of a set.

    Attributes:
        dataset: the set.
        mode: of the test, as the configuration says it.
        levels: what it looked at.
        factors: (R, L) image px -> network px of each image and level.
        study: errors by cause.
        report: the figures of the protocol.
        curves: precision over recall, as far as the protocol has them.
        facts: what the report file says beside figures; empty without it.
    """

    dataset: Dataset
    mode: str
    levels: tuple[TestLevel, ...]
    factors: np.ndarray
    study: Study
    report: Report | None
    curves: list[CurvePlot]
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PageInputs:
    """All that a page shows.

    Attributes:
        cfg: the configuration.
        words: how the user names it on a command line.
        training: the training sets.
        log: curves of the run.
        test_set: the set that is tested on.
        results: detections of it.
    """

    cfg: EasyDict
    words: tuple[str, ...]
    training: Union[TrainingPart, Missing]
    log: Union[RunCurves, Missing]
    test_set: Union[Dataset, Missing]
    results: Union[Results, Missing]

    def command(self, tool: str) -> str:
        """The command of a tool for this configuration."""
        return f"sniper {tool} {shlex.join(self.words)}"


def gather(
    cfg: EasyDict,
    words: Sequence[str],
    run_folder: Path,
    results: Path | None,
    score: float | None,
    worst: int,
) -> PageInputs:
    """Reads what there is; what cannot be read is told in the page and in the log.

    Args:
        cfg: a checked configuration.
        words: how the user names it on a command line, for the commands in the page.
        run_folder: where the log of the training is.
        results: result files; None takes what main_test.py wrote.
        score: as in `study`.
        worst: images with the most errors.

    Raises:
        SniperError: nothing at all can be read, or what the user named cannot.
    """
    command = f"{shlex.join(words)}"
    errors: list[SniperError] = []

    def told(error: SniperError, what: str, mend: str) -> Missing:
        errors.append(error)
        first, *rest = str(error).splitlines()
        logger.warning("%s: %s", what, error)
        where = next((line.strip() for line in rest if line.strip().startswith("where: ")), "")
        where = f" ({where[len('where: ') :]})" if where else ""
        return Missing(f"{what}: {first}{where}.", mend)

    check = f"sniper check-data {command}"
    training: TrainingPart | Missing
    try:
        training = _training(cfg)
    except SniperError as error:
        training = told(error, "The training sets cannot be shown", check)
    log = _log(cfg, run_folder, command)
    test_set: Dataset | Missing
    found: Results | Missing
    try:
        test_set = open_dataset(data_source(cfg), cfg.dataset.test_image_set)
    except SniperError as error:
        test_set = told(error, "The test set cannot be shown", f"{check} --with-test")
        found = Missing(test_set.sentence, test_set.command)
    else:
        try:
            found = _results(cfg, test_set, command, results, score, worst)
        except SniperError as error:
            if results is not None:
                raise
            found = told(error, "The detections cannot be shown", f"sniper test {command}")
    if errors and all(isinstance(part, Missing) for part in (training, log, test_set)):
        raise errors[0]
    return PageInputs(cfg, tuple(words), training, log, test_set, found)


def _training(cfg: EasyDict) -> TrainingPart:
    source = data_source(cfg)
    sets = tuple(open_dataset(source, name) for name in training_sets(cfg))
    note = ""
    try:
        read = read_sets(cfg)
    except DataError as error:
        if not cfg.TRAIN.USE_NEG_CHIPS:
            raise
        # Before the first training there are no proposals; all else can be shown.
        cfg.TRAIN.USE_NEG_CHIPS = False
        read = read_sets(cfg)
        note = f"Negative chips are left out here: {str(error).splitlines()[0]}."
    settings = chip_settings(cfg)
    with LongCall("chips of the first epoch"):
        epoch = make_epoch(read.records, settings, seed=cfg.seed, epoch=0, batch_size=1)
        account = training_account(read, epoch, settings, cfg.TRAIN.MAX_POLYGON_LEN)
        chosen = evenly(np.arange(len(read.records)), _MEASURED_IMAGES).tolist()
        records = [read.records[index] for index in chosen]
        measures = measure(records, settings, seed=cfg.seed, epoch=0)
    data = TrainingSet(cfg, records, read.classes.names, read.classes.ids or ())
    if len(records) < len(read.records):
        seen = f"Chips are counted in {len(records)} of {len(read.records)} training images."
        note = f"{note} {seen}".strip()
    numbers = statistics(data, measures)
    return TrainingPart(data, sets, account, measures, numbers, len(records), note)


def _log(cfg: EasyDict, folder: Path, command: str) -> RunCurves | Missing:
    path = folder / f"{cfg.name}.jsonl"
    if not path.is_file():
        others = sorted(folder.glob("*.jsonl"))
        if len(others) != 1:
            return Missing(
                f"There is no log of a training in {folder}; training writes it:",
                f"sniper train {command}",
            )
        (path,) = others
    try:
        return read_run(path, cfg.name)
    except DataError as error:
        logger.warning("the log of the training: %s", error)
        return Missing(f"{path}: {str(error).splitlines()[0]}.", f"sniper train {command}")


def _results(
    cfg: EasyDict,
    dataset: Dataset,
    command: str,
    path: Path | None,
    score: float | None,
    worst: int,
) -> Results | Missing:
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        return Missing(f"{reason[:1].upper()}{reason[1:]}, so that there is nothing to compare.")
    if cfg.TEST.CLASS_AGNOSTIC:
        dataset = as_one_class(dataset)
    protocol = protocol_of(dataset)
    folder = results_folder(cfg)
    report_path = folder / f"detections_{dataset.image_set}_report.json"
    where = path or protocol.results_path(folder, dataset)
    # Protocols with a file for each class read a folder, which other sets may have made.
    if path is None and (not where.exists() or (where.is_dir() and not report_path.exists())):
        return Missing(
            f"There are no detections of {dataset.name} yet in {folder}; the test writes them:",
            f"sniper test {command}",
        )
    table = protocol.read(where, dataset)
    with LongCall("evaluation"):
        report = protocol.evaluate(dataset, table)
        errors = study(dataset, table, score, worst)
    facts = _facts(report_path) if path is None else {}
    settings = facts.get("settings")
    # A test may have had another mode by --set.
    told = settings.get("mode") if isinstance(settings, dict) else None
    mode = told if told in _MODES else mode_in_force(cfg)
    levels = levels_of(cfg, mode)
    return Results(
        dataset=dataset,
        mode=mode,
        levels=tuple(
            TestLevel(_level_name(level), *map(float, level.valid_range)) for level in levels
        ),
        factors=np.array(
            [[level.factor(record) for level in levels] for record in dataset.records]
        ),
        study=errors,
        report=report,
        curves=[] if report is None else protocol.curves(dataset, report),
        facts=facts,
    )


def _level_name(level: Level) -> str:
    if isinstance(level.scale, tuple):
        return "{:g} \u00d7 {:g} px".format(*level.scale)
    return f"x{level.scale:g}"


def _facts(path: Path) -> dict[str, Any]:
    """What the report file of the test says; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("%s is left out: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}

"""Which way to test for a budget: measured on one half of a set, confirmed on the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.data import Dataset
from sniper.data.classes import MatchedSet
from sniper.data.detections import DetectionTable, reorder
from sniper.data.one_class import match_detected
from sniper.errors import ConfigError
from sniper.evaluation import protocol_of, reason_not_evaluated
from sniper.evaluation.fronts import Confirmation, Point, choose, confirm, front, without_groups
from sniper.evaluation.size_recall import SizeRecall, recall_by_size
from sniper.locks import folder_lock
from sniper.runs.compare_models import spread
from sniper.runs.datasets import open_dataset
from sniper.runs.find_weights import weights_path
from sniper.runs.levels import untrained_windows
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.memory_plan import testing_memory
from sniper.runs.plan import TestPlan, test_plan
from sniper.runs.setting_runs import SettingRun, SettingRuns
from sniper.runs.test_settings import Setting, settings_grid

logger = logging.getLogger(__name__)

# A half with fewer images says nothing.
LEAST_IMAGES = 4
CLOCKS = {"wall": "wall_s", "cpu": "cpu_s"}


@dataclass(frozen=True)
class Wish:
    """What the setting is chosen for; one of the two is None.

    Attributes:
        budget_s: seconds that an image may take.
        loss: accuracy that may be lost against the most accurate setting, as a fraction of 1.
        clock: `wall`, or `cpu`: the seconds of all threads, which other jobs disturb less.
    """

    budget_s: float | None
    loss: float | None
    clock: str = "wall"


@dataclass(frozen=True, eq=False)
class Trial:
    """A setting on a half of the set.

    Attributes:
        setting: what was run.
        point: its accuracy, and its time by the clock of the wish.
        wall_s: seconds an image.
        cpu_s: seconds an image of all threads.
        pixels: network px an image.
        memory_bytes: what it needs for the largest image, by `sniper plan-memory`.
        recall: of objects by size.
    """

    setting: Setting
    point: Point
    wall_s: float
    cpu_s: float
    pixels: float
    memory_bytes: int
    recall: SizeRecall


@dataclass(frozen=True, eq=False)
class PlannedTest:
    """What was found.

    Attributes:
        set_name: of the set.
        number: name of the number that decides.
        images: of the half that chose, and of the half that confirmed.
        trials: all settings on the first half.
        front: names of those that no other beats, cheapest first.
        chosen: the name of the setting.
        confirmed: settings that cost no more than the chosen one, it included, on the second half.
        confirmation: how the chosen one compares with these.
    """

    set_name: str
    number: str
    images: tuple[int, int]
    trials: tuple[Trial, ...]
    front: tuple[str, ...]
    chosen: str
    confirmed: tuple[Trial, ...]
    confirmation: Confirmation

    def trial(self, name: str) -> Trial:
        """The trial of a name on the first half."""
        return next(trial for trial in self.trials if trial.setting.name == name)


def plan_the_test(
    cfg: EasyDict,
    with_keys: Callable[[Sequence[str]], EasyDict],
    wish: Wish,
    modes: Sequence[str],
    *,
    weights: Path | None = None,
    save_prefix: str = "SNIPER",
    images: int = 0,
    seed: int = 0,
) -> PlannedTest:
    """Measures settings on a half of `dataset.test_image_set`, chooses one, and confirms it.

    Finished parts stay on disk below the folder of results, so that a plan that was stopped goes
    on, and a wish that changes costs nothing. Networks with masks are compared by their boxes,
    without the mask head.

    Args:
        cfg: the recipe.
        with_keys: the recipe with `KEY VALUE ...` changed.
        wish: what is asked for.
        modes: that are tried.
        weights: a file; None takes those of the recipe's training.
        save_prefix: stem of the checkpoint files.
        images: take so many, evenly spread over the set; 0: all.
        seed: of the halves.

    Raises:
        ConfigError: the set has too few images or no annotations, no setting is left, or none is
            within the budget.
        DataError: weights or data are missing or do not fit.
    """
    plan = _boxes_only(test_plan(cfg))
    dataset = _dataset(plan, images)
    weights = weights or weights_path(plan.model_dir, plan.epoch, save_prefix)
    width, height = np.median([(r.width, r.height) for r in dataset.records], axis=0).tolist()
    settings = settings_grid(cfg, modes, width, height)
    if not settings:
        raise ConfigError(
            "no setting is left to try",
            got=", ".join(modes),
            fix="more --modes; windows of mode slice must be smaller than the images",
        )
    model = load_model(plan.detector, weights)
    detector = make_detector(plan, model)
    plans: dict[str, TestPlan] = {}
    configs: dict[str, EasyDict] = {}
    for setting in settings:
        configs[setting.name] = with_keys(setting.overrides())
        plans[setting.name] = _boxes_only(test_plan(configs[setting.name]))
        _tell_untrained(plans[setting.name], width, height)
    folder = plan.results_dir / f"plan_{plan.image_set}"
    runs = SettingRuns(detector, weights, folder)
    matched = match_detected(dataset, model.classes, class_agnostic=plan.class_agnostic)
    judge = _Judge(cfg, matched, configs, wish.clock)
    first, second = _halves(matched.dataset, seed)
    with folder_lock(folder, fix="or wait for the other plan"):
        trials = judge.trials(first, settings, runs.run(first, plans))
        points = [trial.point for trial in trials]
        chosen = choose(points, budget_s=wish.budget_s, loss=wish.loss)
        # What costs more can be no reason against it.
        rivals = [t.setting for t in trials if t.point.cost <= chosen.cost]
        other = runs.run(second, {setting.name: plans[setting.name] for setting in rivals})
        confirmed = judge.trials(second, rivals, other)
    chosen_again = next(t.point for t in confirmed if t.setting.name == chosen.name)
    return PlannedTest(
        set_name=dataset.name,
        number=judge.number,
        images=(len(first.records), len(second.records)),
        trials=tuple(trials),
        front=tuple(point.name for point in front(points)),
        chosen=chosen.name,
        confirmed=tuple(confirmed),
        confirmation=confirm(chosen_again, [trial.point for trial in confirmed]),
    )


def _dataset(plan: TestPlan, images: int) -> Dataset:
    dataset = open_dataset(plan.source, plan.image_set)
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        raise ConfigError(
            "settings are compared by their accuracy, and this set cannot be evaluated",
            where=dataset.name,
            got=reason,
            fix="--set dataset.test_image_set NAME of a set with annotations",
        )
    if images:
        dataset = replace(dataset, records=tuple(spread(dataset.records, images)))
    if len(dataset.records) < 2 * LEAST_IMAGES:
        raise ConfigError(
            "there are too few images to choose with one half and to confirm with the other",
            where=dataset.name,
            got=len(dataset.records),
            expected=f"at least {2 * LEAST_IMAGES}",
        )
    return dataset


def _boxes_only(plan: TestPlan) -> TestPlan:
    return replace(plan, detector=replace(plan.detector, with_masks=False))


def _halves(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The images that choose and those that confirm, drawn by chance, each in the set's order."""
    drawn = np.random.default_rng(seed).permutation(len(dataset.records))
    middle = (len(drawn) + 1) // 2
    first, second = (
        replace(dataset, records=tuple(dataset.records[index] for index in sorted(part.tolist())))
        for part in (drawn[:middle], drawn[middle:])
    )
    return first, second


def _tell_untrained(plan: TestPlan, width: float, height: float) -> None:
    warning = untrained_windows(plan.levels, plan.trained_scales, round(width), round(height))
    if warning is not None:
        logger.debug("%s", warning)


class _Judge:
    """From detections and times of settings to trials."""

    def __init__(
        self, cfg: EasyDict, matched: MatchedSet, configs: Mapping[str, EasyDict], clock: str
    ) -> None:
        self._matched, self._configs, self._clock = matched, configs, clock
        self._protocol = protocol_of(matched.dataset)
        self.number = self._protocol.deciding
        records = matched.dataset.records
        largest = max(records, key=lambda record: record.width * record.height)
        self._largest = (largest.width, largest.height)

    def trials(
        self, half: Dataset, settings: Sequence[Setting], runs: Mapping[str, SettingRun]
    ) -> list[Trial]:
        """The settings of one half, in the order of `settings`."""
        return [self._trial(half, setting, runs[setting.name]) for setting in settings]

    def _trial(self, half: Dataset, setting: Setting, run: SettingRun) -> Trial:
        table, _ = self._matched.detections(run.table)
        memory = testing_memory(self._configs[setting.name], self._largest)
        return Trial(
            setting,
            Point(
                setting.name,
                run.per_image(CLOCKS[self._clock]),
                self._accuracy(half, table),
                without_groups(
                    len(half.records), lambda kept: self._accuracy(*_part(half, table, kept))
                ),
            ),
            run.per_image("wall_s"),
            run.per_image("cpu_s"),
            run.per_image("pixels"),
            memory.total + memory.around,
            recall_by_size(half, table),
        )

    def _accuracy(self, dataset: Dataset, table: DetectionTable) -> float:
        report = self._protocol.evaluate(dataset, table)
        value = float("nan") if report is None else float(getattr(report, self.number))
        # COCO's -1, or NaN: no object at all.
        return value if value >= 0 else 0.0


def _part(
    dataset: Dataset, table: DetectionTable, kept: np.ndarray
) -> tuple[Dataset, DetectionTable]:
    records = tuple(dataset.records[index] for index in kept.tolist())
    return replace(dataset, records=records), reorder(table, kept.tolist())

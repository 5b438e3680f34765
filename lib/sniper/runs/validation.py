"""Validation during training: detections and figures of a set with the weights of the moment."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx

from sniper.data import Dataset
from sniper.data.classes import Classes, match_set
from sniper.errors import ConfigError, DataError, SniperError, TrainingError
from sniper.evaluation import protocol_of, reason_not_evaluated
from sniper.models.weights import Params, with_test_params
from sniper.runs.datasets import open_dataset
from sniper.runs.load_model import inference_model
from sniper.runs.plan import ValidationPlan
from sniper.runs.test import evaluate_model
from sniper.training.run_log import Validated

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)


class Validation:
    """The validation set of a run, read once."""

    def __init__(self, plan: ValidationPlan, folder: Path, classes: Classes) -> None:
        """Reads the annotations, so that what is wrong with them shows before training.

        Args:
            plan: the set and how to detect on it.
            folder: results go to `<folder>/epoch-0001` and so on.
            classes: of the run.

        Raises:
            ConfigError: the set has no annotations.
            DataError: its files are missing or broken, or it has classes that the run does not
                train.
        """
        self._plan = plan.test
        self._classes = classes
        self._folder = folder
        self._dataset = open_dataset(plan.test.source, plan.test.image_set)
        _check_annotated(self._dataset)
        match_set(self._dataset, classes)
        logger.info(
            "validation every %d epoch(s) on %s, %d images",
            *(plan.every, self._dataset.name, len(self._dataset.records)),
        )

    def run(self, arg: Params, aux: Params, epoch: int) -> Validated:
        """Tests weights as `main_test.py` does.

        Args:
            arg, aux: parameters and batch-norm averages as trained, by name.
            epoch: epochs done, for the folder's name.

        Raises:
            SniperError: with a line that says what happens to the run.
        """
        started_s = time.monotonic()
        model = inference_model(self._plan.detector, with_test_params(arg), aux, self._classes)
        folder = self._folder / f"epoch-{epoch:04d}"
        try:
            report = evaluate_model(self._plan, model, self._dataset, folder=folder)
            if report is None:
                raise DataError("the set has no annotations", where=self._dataset.name)
        except (SniperError, mx.MXNetError) as error:
            # The kind of an error decides the exit code of the run.
            kind = type(error) if isinstance(error, SniperError) else TrainingError
            raise kind(
                f"the validation after epoch {epoch} failed: {error}",
                fix="the weights of this epoch are saved: go on with --resume, which validates "
                "them first; without validation: --set TRAIN.VALIDATE_EVERY 0",
            ) from error
        took_s = time.monotonic() - started_s
        deciding = protocol_of(self._dataset).deciding
        return Validated(self._dataset.name, figures(report), deciding, took_s)


def figures(report: DataclassInstance, prefix: str = "") -> dict[str, float]:
    """All numbers of a report by name; those of a report within it as `<field>_<name>`."""
    numbers: dict[str, float] = {}
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        if isinstance(value, float):
            numbers[prefix + field.name] = value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            numbers.update(figures(value, f"{prefix}{field.name}_"))
    return numbers


def _check_annotated(dataset: Dataset) -> None:
    reason = reason_not_evaluated(dataset)
    if reason:
        raise ConfigError(
            "the validation set cannot be evaluated",
            where=dataset.name,
            got=reason,
            fix="choose another with --set TRAIN.VALIDATION_SET NAME, or none with "
            "--set TRAIN.VALIDATE_EVERY 0",
        )

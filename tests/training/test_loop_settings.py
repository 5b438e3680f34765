"""When a run ends, when it validates, and which figures a validation has."""

import dataclasses
import math

import pytest

from sniper.evaluation import CocoReport
from sniper.runs.validation import figures
from sniper.training.loop import LoopSettings
from sniper.training.run_log import Validated
from sniper.training.run_state import RunState


def _state(epoch, batch=0, updates=None, validated=0):
    updates = 10 * epoch + batch if updates is None else updates
    return RunState(epoch, updates, 100, 4, 0, batch=batch, validated=validated)


def test_a_run_ends_after_its_epochs_or_updates():
    assert not LoopSettings(3).finished(_state(2, 9))
    assert LoopSettings(3).finished(_state(3))
    assert LoopSettings(3, max_updates=12).finished(_state(1, 2))
    assert not LoopSettings(3, max_updates=12).finished(_state(1, 1))


@pytest.mark.parametrize(
    ("every", "state", "missing"),
    [
        (0, _state(3), False),
        (2, _state(0), False),
        (2, _state(1), False),
        (2, _state(2), True),
        (2, _state(2, validated=20), False),
        (2, _state(2, batch=4), False),
        (2, _state(3), True),  # the end
        (2, _state(3, validated=20), True),
        (2, _state(1, batch=5, updates=25), True),  # the end by max_updates, within an epoch
    ],
)
def test_epochs_that_are_validated(every, state, missing):
    settings = LoopSettings(3, max_updates=25, validate_every=every)
    assert settings.validation_missing(state) == missing


def test_a_run_stops_when_validations_get_no_better():
    settings = LoopSettings(9, validate_every=1, patience=2, min_delta=0.01)
    state = _state(1)
    history = []
    for value in (0.30, 0.305, 0.32, 0.30, 0.33):
        state = settings.judged(state, value)
        history.append((state.mark, state.unimproved, settings.finished(state)))
    # 0.305 is better, but not by enough; 0.33 is not above 0.32 + 0.01.
    assert history[:3] == [(0.30, 0, False), (0.30, 1, False), (0.32, 0, False)]
    assert history[3:] == [(0.32, 1, False), (0.32, 2, True)]
    text = settings.early_stop_text(state)
    assert "has not exceeded 0.3200 by more than 0.01 in 2 validation(s)" in text
    assert not LoopSettings(9, validate_every=1).finished(state), "off by default"


def test_figures_of_boxes_and_masks_have_names_of_their_own():
    names = [field.name for field in dataclasses.fields(CocoReport)]
    numbers = {name: 0.5 for name in names if name.startswith(("ap", "ar"))}
    masks = CocoReport("COCO_val", 3, **{**numbers, "ap": 0.25})
    found = figures(CocoReport("COCO_val", 3, **numbers, masks=masks))
    assert (found["ap"], found["masks_ap"]) == (0.5, 0.25)
    assert len(found) == 2 * len(numbers), "numbers alone"


def test_a_figure_that_does_not_exist_is_never_the_best():
    assert Validated("COCO_val", {"ap": math.nan}, "ap", 1.0).value == 0.0

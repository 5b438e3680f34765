"""A Predictor in a forked child says so at once; one that is made there works."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from sniper.runs.predictor import Predictor
from tests.runs.random_run import random_run

ANSWER_S = 120  # guards against hanging


def in_forked_child(function):
    """What `function` gives in a copy of this process, or its error's type and text."""

    def serve(pipe):
        try:
            pipe.send(function())
        except Exception as error:  # noqa: BLE001 (the parent looks at it)
            pipe.send((type(error).__name__, str(error)))

    own, childs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=serve, args=(childs,), daemon=True)
    child.start()
    try:
        assert own.poll(ANSWER_S), "the child hangs"
        return own.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("is_used", [False, True], ids=["made", "used"])
def test_a_forked_predictor(tmp_path, is_used):
    run = random_run(tmp_path)
    images = [
        np.random.default_rng(seed).integers(0, 255, (70, 90, 3), np.uint8) for seed in (1, 2)
    ]
    predictor = Predictor(run.recipe, mode="single")
    if is_used:
        before = predictor(images)
    for source in (images, images[0]):
        kind, text = in_forked_child(lambda source=source: predictor(source))
        assert kind == "TrainingError" and "forked" in text and "after the fork" in text
    fresh = in_forked_child(
        lambda: [found.boxes for found in Predictor(run.recipe, mode="single")(images)]
    )
    after = predictor(images)
    for of_child, of_parent in zip(fresh, after):
        np.testing.assert_array_equal(of_child, of_parent.boxes)
    if is_used:
        assert [len(one) for one in before] == [len(one) for one in after]

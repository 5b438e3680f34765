"""Training and testing keep other runs out of the folders that they write to."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from sniper import load_config
from sniper.errors import DataError, TrainingError
from sniper.locks import folder_lock
from sniper.runs import test as test_module
from sniper.runs import train as train_module
from sniper.runs.plan import test_plan, train_plan
from tests.runs.random_run import random_run


@pytest.fixture
def cfg(tmp_path):
    run = random_run(tmp_path)
    return load_config(
        run.recipe,
        ["dataset.dataset_path", str(tmp_path / "none"), "output_path", str(tmp_path / "o")],
    )


def test_a_second_training_is_refused_before_it_writes_anything(cfg):
    folder = train_plan(cfg).folder
    with folder_lock(folder, fix=""), pytest.raises(TrainingError, match="another run") as caught:
        train_module.train(cfg)
    assert f"process {os.getpid()}" in str(caught.value) and str(folder) in str(caught.value)
    assert list(folder.iterdir()) == []
    with pytest.raises(DataError):  # there are no images: it gets as far as this
        train_module.train(cfg)
    assert not list(folder.glob(".*.lock"))


def test_a_second_test_on_the_same_set_is_refused(cfg):
    plan = test_plan(cfg)
    with folder_lock(plan.results_dir, name=f"test_{plan.image_set}", fix=""):
        with pytest.raises(TrainingError, match="another run"):
            test_module.test(cfg)
        assert not plan.model_dir.exists() or not list(plan.model_dir.glob("*.log"))
    with folder_lock(plan.results_dir, name="test_another_set", fix=""), pytest.raises(DataError):
        test_module.test(cfg)


def test_evaluate_model_keeps_other_runs_out_of_its_folder(cfg, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    made = []
    dataset = SimpleNamespace(image_set="val")
    model = SimpleNamespace(classes=None)
    monkeypatch.setattr(test_module, "match_detected", lambda dataset, *_, **__: dataset)
    monkeypatch.setattr(test_module, "make_detector", lambda *_: made.append(list_locks(folder)))
    monkeypatch.setattr(test_module, "detect_in_memory", lambda *_: 1 / 0)
    with folder_lock(folder, name="test_val", fix=""):
        with pytest.raises(TrainingError, match="another run"):
            test_module.evaluate_model(test_plan(cfg), model, dataset, folder=folder)
        assert not made
    with pytest.raises(ZeroDivisionError):
        test_module.evaluate_model(test_plan(cfg), model, dataset, folder=folder)
    assert made == [[".test_val.lock"]] and not list_locks(folder)


def list_locks(folder):
    return [path.name for path in folder.glob(".*.lock")]

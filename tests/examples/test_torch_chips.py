"""`examples/torch_chips.py`, where PyTorch and torchvision are installed."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sniper.chips import make_epoch
from sniper.data import append_flipped, filter_trainable, load_dataset
from sniper.targets.gt import gt_in_chip
from sniper.tools.toy.settings import SceneSettings, ToySettings
from sniper.tools.toy.writer import make_toy_data

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "torch_chips.py"


@pytest.fixture(scope="module")
def example():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    scene = SceneSettings(long_side_px=200, max_size_px=120, min_objects=2, max_objects=4)
    settings = ToySettings(train=4, val=1, test=0, test_dev=0, scene=scene)
    make_toy_data(root, settings, workers=1, progress=lambda _: None)
    return filter_trainable(append_flipped(load_dataset("coco", root, "train").records))


def test_samples_are_the_chips_of_the_epoch(example, records):
    chips = example.Chips(records, epoch=1, batch_size=4)
    epoch = make_epoch(records, example.CHIPS, seed=0, epoch=1, batch_size=4)
    assert len(chips) == len(epoch.samples)
    for index, (row, number) in enumerate(epoch.samples.tolist()):
        chip = epoch.chips[row][number]
        image, target = chips[index]
        assert image.shape == (3, 128, 128) and 0 <= image.min() <= image.max() <= 1
        gt = gt_in_chip(records[row], chip.rect, chip.factor, chip.rows, 128)
        boxes = gt.boxes + [0, 0, 1, 1]
        np.testing.assert_array_equal(target["boxes"].numpy(), boxes[gt.valid])
        np.testing.assert_array_equal(target["ignored"].numpy(), boxes[~gt.valid])
        assert target["labels"].tolist() == gt.classes[gt.valid].tolist()


def test_background_like_ignored_boxes_gives_no_loss(example):
    model = example.detector(3, example.small_mobilenet())
    # An object, what is like an ignored box, what is like the object, two backgrounds.
    boxes = torch.tensor([[10.0, 10, 30, 30], [60, 60, 90, 90], [12, 12, 28, 28]])
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0, 128, 128], [70, 70, 78, 78]])])
    target = {"boxes": torch.tensor([[10.0, 10, 30, 30]]), "labels": torch.tensor([2])}
    target["ignored"] = torch.tensor([[55.0, 55, 95, 95]])
    labels, _ = model.rpn.assign_targets_to_anchors([boxes], [target])
    assert labels[0].tolist()[:2] == [1, -1] and labels[0].tolist()[3:] == [0, 0]
    plain, _ = model.rpn.assign_targets_to_anchors(
        [boxes], [{**target, "ignored": torch.zeros(0, 4)}]
    )
    assert plain[0].tolist()[1] == 0
    seen = []
    heads = model.roi_heads
    sampler = heads.fg_bg_sampler
    heads.fg_bg_sampler = lambda labels: (seen.append(labels), sampler(labels))[1]
    heads.select_training_samples([boxes], [target])
    # What is left after sampling, with the object itself, which is added to the proposals.
    assert seen[0][0].tolist() == [2, 2, 0, 0, 2]


def test_a_few_updates_lower_the_loss(example, records, capsys):
    example.train(records, 11, updates=12, batch_size=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    numbers = np.array([[float(part.split()[-1]) for part in line.split(", ")] for line in lines])
    totals = numbers.sum(axis=1)
    assert np.isfinite(totals).all() and totals[-4:].mean() < totals[:4].mean()

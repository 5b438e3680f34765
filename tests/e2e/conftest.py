"""A tiny data set and recipe: small enough to train in seconds, with every room in use."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from sniper.tools.toy.settings import SceneSettings, ToySettings
from sniper.tools.toy.writer import make_toy_data
from sniper.tools.train import main as train_main
from tests.e2e.detection_runs import Runs

RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
proposal_path: {root}/proposals
network: {{WIDTH: 0.25, ROI_CHANNELS: 16, FC_CHANNELS: 32}}
dataset: {{root_path: {root}, dataset_path: {root}/toy, NUM_CLASSES: 4}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [1.5, 128.0]
  VALID_RANGES: [[-1, 60], [40, -1]]
  end_epoch: 2
  lr_step: '1.5'
  warmup_step: 3
  BATCH_IMAGES: 4
  KEEP_CHECKPOINTS: 0
TEST:
  SCALES: [[240, 320], [128, 128]]
  VALID_RANGES: [[-1, 70], [35, -1]]
  BATCH_IMAGES: [2, 3]
  TEST_EPOCH: 2
  PROPOSAL_SAVE_PATH: {root}/proposals
  VISUALIZATION_PATH: {root}/pictures
"""


@dataclass(frozen=True)
class Tiny:
    """Where the tiny data set and its recipe are."""

    root: Path
    cfg: Path

    def train(self, output: str, *flags: str, overrides: tuple[str, ...] = ()) -> Path:
        """Trains into `<root>/<output>`; returns the model folder."""
        assert self.run_train(output, *flags, overrides=overrides) == 0
        return self.model_folder(output)

    def run_train(self, output: str, *flags: str, overrides: tuple[str, ...] = ()) -> int:
        """Exit code of the training program."""
        return train_main([*self.arguments(output, *flags), *overrides])

    def arguments(self, output: str, *flags: str) -> list[str]:
        """Command line that trains into `<root>/<output>`; overrides may follow."""
        folder = str(self.root / output)
        return ["--cfg", str(self.cfg), "--display", "1", *flags, "--set", "output_path", folder]

    def model_folder(self, output: str) -> Path:
        """Where the weights of a run are."""
        return self.root / output / "tiny" / "train"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    scene = SceneSettings(
        classes=3, long_side_px=200, max_size_px=120, min_objects=2, max_objects=4
    )
    settings = ToySettings(train=6, val=3, test=1, test_dev=2, scene=scene)
    make_toy_data(root / "toy", settings, workers=1, progress=lambda _: None)
    cfg = root / "tiny.yml"
    cfg.write_text(RECIPE.format(root=root))
    return Tiny(root, cfg)


@pytest.fixture(scope="session")
def trained(tiny) -> Path:
    """Model folder of a finished run."""
    return tiny.train("output")


@pytest.fixture(scope="session")
def runs(tiny, trained):
    """Test runs of the trained network."""
    return Runs(tiny, trained)


@pytest.fixture
def one_image_blocks(monkeypatch) -> None:
    """Lets small sets be more than one block."""
    monkeypatch.setattr("sniper.runs.detect_set._BLOCK_IMAGES", (1, 1))


@pytest.fixture
def fresh(tiny):
    """Name of an output folder that is empty."""
    shutil.rmtree(tiny.root / "workers", ignore_errors=True)
    return "workers"

"""Where a configuration's runs leave what they make."""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict


def mining_folder(cfg: EasyDict) -> Path:
    """Where a run that mines leaves its proposals and the network that made them."""
    return model_folder(cfg) / "mining"


def model_folder(cfg: EasyDict) -> Path:
    """`<output_path>/<recipe>/<training sets joined by _>`: 2018 layout of checkpoints and logs."""
    return Path(cfg.output_path) / cfg.name / "_".join(cfg.dataset.image_set.split("+"))


# The value of all 2018 files, which nobody chose.
_DRAWINGS_OF_2018 = Path("debug/visualization")


def drawings_folder(cfg: EasyDict) -> Path:
    """Where `--vis` draws: below the output folder, unless the user names another place."""
    path = Path(cfg.TEST.VISUALIZATION_PATH)
    if path == _DRAWINGS_OF_2018:
        path = Path(cfg.output_path) / "visualization"
    return path / "dets_final"


ANALYSIS_NAME = "analysis.json"


def results_folder(cfg: EasyDict) -> Path:
    """Where results of tests go."""
    return Path(cfg.output_path) / "results"


def analysis_folder(cfg: EasyDict, image_set: str | None = None) -> Path:
    """Where the analysis of the results of a set goes; None: the test set."""
    return results_folder(cfg) / f"analysis_{image_set or cfg.dataset.test_image_set}"


def report_page(cfg: EasyDict, image_set: str | None = None) -> Path:
    """The page of `sniper report` for the results of a set; None: the test set."""
    return results_folder(cfg) / f"report_{image_set or cfg.dataset.test_image_set}.html"


def demo_folder(cfg: EasyDict) -> Path:
    """Where the demo draws, unless the user names another place."""
    return Path(cfg.output_path) / "demo"

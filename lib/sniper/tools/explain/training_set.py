"""The records that training would use, for the tools that look at them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easydict import EasyDict

from sniper.config import load_config
from sniper.data.record import Record
from sniper.files import atomic_write_text
from sniper.runs.datasets import training_records
from sniper.runs.plan import training_data


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A configuration and the records that it trains on.

    Attributes:
        cfg: the resolved configuration.
        records: training images, flipped copies behind their originals when FLIP is on.
        class_names: index 0 is the background.
    """

    cfg: EasyDict
    records: list[Record]
    class_names: tuple[str, ...]


def log_to_stderr() -> None:
    """Shows what takes long; the standard output is for results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def add_data_flags(parser: argparse.ArgumentParser, sets_default: str) -> None:
    """Adds --image_set and --json, which all data tools have."""
    parser.add_argument(
        "--image_set",
        metavar="NAMES",
        help=f"sets to look at, joined by + (default: {sets_default})",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the numbers as JSON; - writes them to the standard output",
    )


def load_training_set(
    cfg_name: str,
    overrides: Sequence[str],
    image_set: str | None = None,
    forced: Sequence[str] = (),
) -> TrainingSet:
    """Reads a configuration and its training images.

    Args:
        cfg_name: file or recipe.
        overrides: the items of `--set`.
        image_set: sets to read instead of `dataset.image_set`.
        forced: further items of `--set`, stronger than `overrides`.

    Raises:
        ConfigError, DataError: as a training run would.
    """
    extra = ["dataset.image_set", image_set] if image_set else []
    cfg = load_config(cfg_name, [*overrides, *extra, *forced])
    records, class_names = training_records(training_data(cfg))
    return TrainingSet(cfg, records, class_names)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a tool's numbers to a file, or to the standard output for `-`.

    Raises:
        TrainingError: the file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        atomic_write_text(path, text)

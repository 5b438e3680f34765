"""Command-line flags that several programs share."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_CFG = "configs/faster/sniper_res101_e2e.yml"


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --cfg, --save_prefix and --set (2018 names and defaults)."""
    _add_cfg(parser)
    parser.add_argument(
        "--save_prefix", default="SNIPER", help="stem of the checkpoint files (default: SNIPER)"
    )
    _add_set(parser)


def add_weights_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --weights."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a .params file, or an archive (.zip) of `sniper export` or `sniper quantize` "
        "(default: what the recipe's training has left)",
    )


def add_cfg_and_set(parser: argparse.ArgumentParser) -> None:
    """Adds --cfg and --set alone, for tools that read no checkpoints."""
    _add_cfg(parser)
    _add_set(parser)


def _add_cfg(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg",
        default=DEFAULT_CFG,
        help="configuration file, or the name of a shipped recipe (default: %(default)s)",
    )


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="overrides, must be the last flag: --set TRAIN.lr 0.01 gpus cpu",
    )

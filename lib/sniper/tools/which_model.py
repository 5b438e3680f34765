"""Flags that say which model a command works with: a recipe with weights, or an archive."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Union

from sniper.errors import ConfigError
from sniper.tools.arguments import DEFAULT_CFG, Flags, add_weights_flag

if TYPE_CHECKING:
    from easydict import EasyDict

    # What `Predictor` takes as `cfg`.
    Choice = Union[Path, EasyDict]


def add_model_flags(flags: Flags) -> None:
    """Adds --model, --weights and --gpus; --cfg, --save_prefix and --set come last."""
    flags.add_argument(
        "--model",
        type=Path,
        metavar="MODEL.zip",
        help="archive of `sniper export`, instead of --cfg",
    )
    add_weights_flag(flags)
    flags.add_argument(
        "--gpus",
        metavar="LIST",
        help="devices: 0 or 0,1 or cpu (default: the recipe's, or the CPU with --model)",
    )


def check_model_flags(args: argparse.Namespace) -> None:
    """Raises ConfigError for an archive beside what it has itself, and for one that is none."""
    if args.model is None:
        return
    if args.model.suffix.lower() != ".zip":
        raise ConfigError(
            "--model wants an archive (.zip) of `sniper export` or `sniper quantize`",
            got=args.model,
            fix=f"weights need the recipe that they were trained with: --cfg RECIPE --weights "
            f"{args.model}",
        )
    also = {
        "--cfg": args.cfg != DEFAULT_CFG,
        "--weights": args.weights is not None,
        "--set": bool(args.overrides),
    }
    given = [flag for flag, is_given in also.items() if is_given]
    if given:
        raise ConfigError(
            "an archive has its own configuration and weights",
            where="--model",
            got=f"{', '.join(given)} as well",
            fix="leave them out; --mode, --batch, --gpus, --engine and --class-agnostic work with "
            "archives",
        )


def chosen_model(args: argparse.Namespace) -> tuple[Choice, Path | None, str]:
    """What `Predictor` takes as `cfg` and `weights`, and what the model is called in messages.

    Raises:
        ConfigError: the configuration is wrong.
        DataError: there are no weights.
    """
    from sniper.config import load_config
    from sniper.runs.find_weights import find_weights

    if args.model is not None:
        return args.model, None, str(args.model)
    cfg, weights = load_config(args.cfg, args.overrides), args.weights
    if weights is None:
        fall_back = args.overrides if args.cfg == DEFAULT_CFG else None
        cfg, weights = find_weights(cfg, args.save_prefix, fall_back)
    return cfg, weights, str(weights)

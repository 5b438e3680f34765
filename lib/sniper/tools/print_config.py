"""`sniper print-config`: the configuration that a run would use, or the documented schema."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sniper.config import describe_keys, dump_config, load_config
from sniper.data.formats import find_format
from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_config_flags,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = "Prints a configuration with all defaults and --set values, or explains the keys."
_EPILOG = """\
examples:
  sniper print-config --cfg sniper_mobilenetv2_toy --set TRAIN.lr 0.01
  sniper print-config --doc CHIP
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints to stdout and returns the exit code."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper print-config", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--doc",
        nargs="?",
        const="",
        metavar="TEXT",
        help="explain every key, or those whose name contains TEXT, instead",
    )
    add_config_flags(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.doc is None:
        cfg = load_config(args.cfg, args.overrides)
        print(dump_config(cfg), end="")
        _tell_unknown_format(cfg.dataset.dataset)
        return 0
    text = describe_keys(args.doc)
    if not text:
        raise ConfigError("no key contains this text", got=args.doc, fix="try a shorter one")
    print(text)
    return 0


def _tell_unknown_format(name: str) -> None:
    """Formats of other packages are found when a set is opened: nothing is refused here."""
    try:
        find_format(name)
    except ConfigError as error:
        print(f"warning: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

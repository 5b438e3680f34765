"""Command-line flags that several commands share, each with one help text.

`--set` takes all that follows it, so it is the last flag of every command, and the functions that
add it are called last.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sniper.config.kinds import RATIO, Float, Int, Kind
from sniper.files import atomic_write_text

DEFAULT_CFG = "configs/faster/sniper_res101_e2e.yml"

# A parser, or a group of one.
Flags = argparse._ActionsContainer

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
_SIDES = re.compile(r"(\d+)x(\d+)")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def value_of(kind: Kind) -> Callable[[str], Any]:
    """What argparse makes of a flag's text: a value of a kind, or a message that says the kind.

    Numbers that are not finite fit no kind.
    """

    def parse(text: str) -> Any:
        try:
            return kind.coerce_text(text)
        except ValueError as error:
            reason = f" ({error})" if str(error) else ""
            raise argparse.ArgumentTypeError(
                f"expected {kind.describe()}, got {text!r}{reason}"
            ) from error

    return parse


# Types of flags: a share or score, a number of things, one that is at least one.
as_ratio = value_of(RATIO)
as_count = value_of(Int(minimum=0))
as_positive = value_of(Int(minimum=1))
as_positive_number = value_of(Float(minimum=1e-9))


def command_parser(
    name: str, description: str, epilog: str | None = None, usage: str | None = None
) -> argparse.ArgumentParser:
    """The parser of a command; description and epilog are shown as they are.

    Args:
        name: as it is typed: `sniper detect`, `demo.py`.
        description: what the command does.
        epilog: examples, and what else there is to know.
        usage: the usage line; argparse makes it by default.
    """
    return argparse.ArgumentParser(
        prog=name,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_flags(flags: Flags) -> None:
    """Adds --cfg, --save_prefix and --set (2018 names and defaults)."""
    _add_cfg(flags)
    flags.add_argument(
        "--save_prefix",
        default="SNIPER",
        metavar="NAME",
        help="stem of the checkpoint files (default: %(default)s)",
    )
    add_set_flag(flags)


def add_cfg_and_set(flags: Flags) -> None:
    """Adds --cfg and --set alone, for tools that read no checkpoints."""
    _add_cfg(flags)
    add_set_flag(flags)


def add_weights_flag(flags: Flags) -> None:
    """Adds --weights."""
    flags.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a .params file, or an archive (.zip) of `sniper export` or `sniper quantize` "
        "(default: what the recipe's training has left)",
    )


def add_engine_format_flag(flags: Flags) -> None:
    """Adds --format: what an archive is for."""
    flags.add_argument(
        "--format",
        choices=("mxnet", "onnx"),
        default="mxnet",
        help="what runs the archive; onnx: ONNX Runtime or OpenVINO, without MXNet (default: "
        "%(default)s)",
    )


def add_test_epoch_flag(flags: Flags) -> None:
    """Adds --epoch: which checkpoint of a detector."""
    flags.add_argument(
        "--epoch",
        type=as_count,
        metavar="E",
        help="epoch of the detector (default: TEST.TEST_EPOCH, or the newest checkpoint)",
    )


def add_mode_flag(flags: Flags, choices: Sequence[str]) -> None:
    """Adds --mode: what detection looks at."""
    flags.add_argument(
        "--mode", choices=choices, help="levels to look at (default: TEST.MODE of the recipe)"
    )


def add_display_flag(flags: Flags) -> None:
    """Adds --display (2018 name and default)."""
    flags.add_argument(
        "--display",
        type=as_count,
        default=100,
        metavar="N",
        help="batches between progress lines (default: %(default)s)",
    )


def add_verbose_flag(flags: Flags) -> None:
    """Adds --verbose."""
    flags.add_argument(
        "--verbose",
        action="store_true",
        help="print all details of the start, which stand in the log file anyway",
    )


def add_data_flags(flags: Flags) -> None:
    """Adds --image_set and --json, for tools that look at training sets."""
    add_image_set_flag(flags)
    add_json_flag(flags)


def add_image_set_flag(flags: Flags) -> None:
    """Adds --image_set: other training sets than those of the recipe."""
    flags.add_argument(
        "--image_set",
        metavar="NAMES",
        help="sets to look at, joined by + (default: dataset.image_set)",
    )


def add_images_flag(flags: Flags, default: int) -> None:
    """Adds --images: how many images of a set; 0 stands for all."""
    flags.add_argument(
        "--images",
        type=as_count,
        default=default,
        metavar="N",
        help=f"look at N images, evenly spread over the set (default: {default or 'all'})",
    )


def add_chip_epoch_flag(flags: Flags) -> None:
    """Adds --epoch: whose chips."""
    flags.add_argument(
        "--epoch",
        type=as_count,
        default=0,
        metavar="E",
        help="chips of this epoch (default: %(default)s)",
    )


def add_json_flag(flags: Flags) -> None:
    """Adds --json; see `write_json`."""
    flags.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the numbers as JSON; - writes them to the standard output",
    )


def add_plot_flag(flags: Flags) -> None:
    """Adds --plot."""
    flags.add_argument("--plot", type=Path, metavar="FILE", help="also draw a plot (PNG)")


def add_out_flag(flags: Flags, metavar: str, what: str, *, required: bool = False) -> None:
    """Adds --out: where results go.

    Args:
        flags: a parser or group.
        metavar: the kind of file: `DIR`, `MODEL.zip`.
        what: what goes there; with the default, unless it is required.
        required: there is no default.
    """
    flags.add_argument("--out", type=Path, required=required, metavar=metavar, help=what)


def add_overwrite_flag(flags: Flags) -> None:
    """Adds --overwrite."""
    flags.add_argument(
        "--overwrite", action="store_true", help="replace another file that is there"
    )


def add_check_flag(flags: Flags) -> None:
    """Adds --check."""
    flags.add_argument("--check", action="store_true", help="read and check only, write nothing")


def as_bytes(text: str) -> int:
    """Bytes of `20MB`, `1.5 kB` or `2GB` (powers of 1000), `15.5GiB` (of 1024), or a plain number.

    Raises:
        argparse.ArgumentTypeError: it is no size above 0.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _FACTORS[(match[2] or "").lower()]) if match else 0
    if not size:
        raise argparse.ArgumentTypeError(f"expected a size such as 20MB or 32GB, got {text!r}")
    return size


def as_image_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`, px.

    Raises:
        argparse.ArgumentTypeError: the text is something else, or a side is 0.
    """
    match = _SIDES.fullmatch(text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, got {text!r}")
    return int(match[1]), int(match[2])


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


def _add_cfg(flags: Flags) -> None:
    flags.add_argument(
        "--cfg",
        default=DEFAULT_CFG,
        metavar="FILE",
        help="configuration file, or the name of a shipped recipe (default: %(default)s)",
    )


def add_set_flag(flags: Flags) -> None:
    """Adds --set alone."""
    flags.add_argument(
        "--set",
        dest="overrides",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="values of keys, instead of the file's; must be the last flag: --set TRAIN.lr 0.01 "
        "gpus cpu (`sniper print-config --doc` explains the keys)",
    )

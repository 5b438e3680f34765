"""`sniper place-weights`: checks a weight file against a recipe and puts it where it belongs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sniper.errors import DataError
from sniper.tools.arguments import (
    add_check_flag,
    add_config_flags,
    add_overwrite_flag,
    add_test_epoch_flag,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.weights.place import place
from sniper.tools.weights.unpack import is_archive, unpack

if TYPE_CHECKING:
    from easydict import EasyDict

SUFFIX = ".params"
_DESCRIPTION = """\
Compares the names and shapes of a .params file, also one inside a .zip, .tar or .tar.gz archive,
with the network of a recipe. When all fit, the file is copied unchanged:

  without --backbone   to where main_test.py and demo.py look for the recipe's detector
  with --backbone      to where training looks for pretrained weights (network.pretrained)

Of an archive with several .params files the one is taken that has the recipe's name for it, in a
folder of the recipe's name where there are more of them; --member names another one.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the file fits and is in place, 1 when it cannot be written, 2 for a bad setting, 3
        for a file that is missing, damaged, unsafe or of another network.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "sniper place-weights",
        _DESCRIPTION,
        epilog="example: sniper place-weights SNIPER-0007.params --cfg sniper_res101_e2e",
    )
    parser.add_argument("source", type=Path, metavar="FILE", help="a .params file or an archive")
    parser.add_argument(
        "--member",
        metavar="PATH",
        help="which .params of an archive that holds several: its path there, or the end of it",
    )
    parser.add_argument("--backbone", action="store_true", help="the file is a pretrained backbone")
    add_test_epoch_flag(parser)
    add_check_flag(parser)
    add_overwrite_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config

    cfg = load_config(args.cfg, args.overrides)
    if args.epoch is not None:
        cfg.TEST.TEST_EPOCH = args.epoch
    if not args.source.is_file():
        raise DataError("the file is not there", where=args.source)
    with tempfile.TemporaryDirectory(prefix="sniper-weights-") as folder:
        target = _target(cfg, args.save_prefix, backbone=args.backbone)
        named = (target.name, cfg.name)
        source = _params_file(args.source, args.member, Path(folder), named)
        count = _check_fit(cfg, source, args.source, backbone=args.backbone)
        print(f"{args.source}: all {count} tensors fit {cfg.symbol} ({args.cfg})")
        if not args.check:
            wrote = place(target, source.read_bytes(), overwrite=args.overwrite)
            print(f"placed: {target}" if wrote else f"{target} is the same file already")
    return 0


def _params_file(source: Path, member: str | None, folder: Path, named: tuple[str, str]) -> Path:
    """The file, or that of an archive; `named`: the recipe's name for it, and of the recipe."""
    if not is_archive(source):
        if member is not None:
            raise DataError("the file is no archive: --member has nothing to choose", where=source)
        return source
    files = [PurePosixPath(path.relative_to(folder)) for path in unpack(source, folder, [SUFFIX])]
    if member is None:
        chosen = _likely(files, *named)
    else:
        end = PurePosixPath(member).parts
        chosen = [path for path in files if path.parts[-len(end) :] == end]
    if len(chosen) != 1:
        raise DataError(
            "which of the archive's files is meant?" if chosen else "the archive lacks the file",
            where=source,
            got=", ".join(map(str, files)) or f"no {SUFFIX} file",
            fix="name one with --member PATH, as far from its end as makes it the only one",
        )
    if len(files) > 1:
        print(f"{source}: taking {chosen[0]}")
    return folder / chosen[0]


def _likely(files: list[PurePosixPath], name: str, recipe: str) -> list[PurePosixPath]:
    """Of several files those that are called as the recipe's, in its own folder."""
    chosen = files
    for fits in (lambda path: path.name == name, lambda path: recipe in path.parts[:-1]):
        if len(chosen) > 1:
            chosen = [path for path in chosen if fits(path)] or chosen
    return chosen


def _check_fit(cfg: EasyDict, path: Path, where: Path, *, backbone: bool) -> int:
    """Number of tensors that the network takes from the file; raises DataError if any is amiss."""
    from sniper.models.fit import fit_params
    from sniper.models.weights import for_test, read_params
    from sniper.runs.export import inference_networks
    from sniper.runs.resolve import detector_spec

    arg, aux = read_params(path)
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=False)
    names: set[str] = set()
    for symbol, shapes in inference_networks(spec)[: 1 if backbone else None]:
        fitting = fit_params(symbol, shapes, for_test(arg), aux, where, backbone_only=backbone)
        names.update(*fitting)
    return len(names)


def _target(cfg: EasyDict, save_prefix: str, *, backbone: bool) -> Path:
    from sniper.runs.folders import model_folder

    if not backbone:
        epoch = cfg.TRAIN.end_epoch if cfg.TEST.TEST_EPOCH is None else cfg.TEST.TEST_EPOCH
        return model_folder(cfg) / f"{save_prefix}-{epoch:04d}{SUFFIX}"
    if not cfg.network.pretrained:
        raise DataError("the recipe trains from scratch", where="network.pretrained", got="''")
    return Path(f"{cfg.network.pretrained}-{cfg.network.pretrained_epoch:04d}{SUFFIX}")

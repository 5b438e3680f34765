"""`sniper report`: one HTML page of a data set, a run and its results."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.config import load_config
from sniper.errors import ConfigError, DataError
from sniper.files import atomic_write_text
from sniper.runs.folders import model_folder, report_page
from sniper.tools.arguments import (
    DEFAULT_CFG,
    add_cfg_and_set,
    add_out_flag,
    as_bytes,
    as_positive,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.training_set import log_to_stderr
from sniper.tools.page.inputs import gather
from sniper.tools.page.page import build
from sniper.tools.page.pictures import size_text

_DESCRIPTION = """\
Makes one HTML page to look at, which needs no server and no network: account of the annotations,
object sizes against the levels, chips with examples, training curves, average precision by class,
size and level, precision and recall, recall against object size at the network's input, confusions,
causes of errors with remedies, and the worst images, filtered by cause, class, size, level, score.

What is not there yet (a training, a test) is told in the page with the command that makes it: it
is useful for a data set alone.
"""
_EPILOG = """\
examples:
  sniper report output/sniper_res18_toy
  sniper report --cfg sniper_res18_toy --out toy.html --max-size 5MB
  sniper report --cfg my.yml --results other_results.json --worst 1000

RUN is the folder of a run: the one with its weights and config.yml, or one above it that holds no
other run. main_test.py --report makes the page after a test.
"""
DEFAULT_MAX_SIZE, DEFAULT_WORST = "20MB", 200

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; 0, or 2 for a wrong config and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper report", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="folder of a run, instead of --cfg"
    )
    add_out_flag(parser, "FILE", "the page (default: `report_<set>.html` beside the results)")
    parser.add_argument(
        "--max-size",
        type=as_bytes,
        default=DEFAULT_MAX_SIZE,
        metavar="SIZE",
        help="most bytes of the page; pictures become smaller, then fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="PATH",
        help="COCO result file, or for Pascal VOC the folder with VOC<year>/Main (default: what "
        "main_test.py wrote for this config)",
    )
    parser.add_argument(
        "--score",
        type=as_ratio,
        metavar="S",
        help="least score of the detections that count as given (default: that of the best F1)",
    )
    parser.add_argument(
        "--worst",
        type=as_positive,
        default=DEFAULT_WORST,
        metavar="N",
        help="images with the most errors to show (default: %(default)s)",
    )
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    log_to_stderr()
    if args.run is None:
        cfg_name, overrides = args.cfg, args.overrides
        folder = None
    elif args.cfg != DEFAULT_CFG:
        parser.error("give RUN or --cfg, not both")
    else:
        folder = find_run(args.run)
        cfg_name, overrides = str(folder / "config.yml"), [*_moved(folder), *args.overrides]
    cfg = load_config(cfg_name, overrides)
    path = write_page(
        *(cfg, cfg_name, overrides),
        out=args.out,
        max_size=args.max_size,
        results=args.results,
        score=args.score,
        worst=args.worst,
        run_folder=folder,
    )
    print(path)
    return 0


def write_page(
    cfg: EasyDict,
    cfg_name: str,
    overrides: Sequence[str],
    *,
    out: Path | None = None,
    max_size: int | None = None,
    results: Path | None = None,
    score: float | None = None,
    worst: int = DEFAULT_WORST,
    run_folder: Path | None = None,
) -> Path:
    """Writes the page of a configuration and says in the log how large it is.

    Args:
        cfg: the checked configuration.
        cfg_name: as the user names it.
        overrides: the items of `--set`.
        out: the file; None: beside the results.
        max_size: bytes that it may have; None: 20 MB.
        results: result files; None: what main_test.py wrote.
        score: the least score of a detection that counts as given; None: that of the best F1.
        worst: images with the most errors.
        run_folder: of the training log; None: that of the configuration.

    Raises:
        ConfigError: the page does not fit into its size.
        DataError: there is nothing to show.
        TrainingError: the file cannot be written.
    """
    words = ["--cfg", cfg_name, *(["--set", *overrides] if overrides else [])]
    inputs = gather(cfg, words, run_folder or model_folder(cfg), results, score, worst)
    text = build(inputs, max_size or as_bytes(DEFAULT_MAX_SIZE))
    path = out or report_page(cfg)
    atomic_write_text(path, text)
    logger.info("a page of %s: open it in a browser", size_text(path.stat().st_size))
    return path


def find_run(folder: Path) -> Path:
    """The folder of a run, in or below a folder: the one with `config.yml`.

    Raises:
        DataError: there is none.
        ConfigError: there are several.
    """
    if (folder / "config.yml").is_file():
        return folder
    # Not those of the network that has mined negative chips, which lie in the folder of their run.
    found = [p for depth in ("*", "*/*") for p in sorted(folder.glob(f"{depth}/config.yml"))]
    if not found:
        raise DataError(
            "this is no folder of a run",
            where=folder,
            expected="config.yml in it, or two folders below it at most",
            fix="name the folder that training wrote its weights to, or use --cfg",
        )
    if len(found) > 1:
        shown = ", ".join(str(path.parent) for path in found[:5])
        raise ConfigError("there are several runs", where=folder, got=shown, fix="name one of them")
    return found[0].parent


def _moved(folder: Path) -> list[str]:
    """Where the results of a run are, whose folder may have been moved: `--set` items."""
    cfg = load_config(folder / "config.yml")
    own = folder.resolve()
    if own == model_folder(cfg).resolve() or model_folder(cfg).parts[-2:] != own.parts[-2:]:
        return []
    return ["output_path", str(folder.parent.parent)]


if __name__ == "__main__":
    sys.exit(main())
